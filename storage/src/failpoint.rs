//! Places where a test can make the process crash. Without the cargo feature `failpoints` they compile to
//! nothing.
//!
//! With it, `TERCET_FAILPOINT=name` aborts the process the first time the place `name` is reached,
//! `TERCET_FAILPOINT=name:3` the third time, and `TERCET_FAILPOINT=name=sleep(500)` takes any action of the
//! crate `fail-parallel`; several are joined by `;`. The names are in [`PUSH`], [`BLOB_PUBLISH`], [`ATOMIC_WRITE`],
//! [`QUARANTINE`], [`COLLECT`] and [`CHECKPOINT`].

/// Steps of a push between the client's last byte and its answer, in order. Those of the disk and of the
/// Raft log lie between them.
pub const PUSH: &[&str] = &[
    // The copy here is published; the other holders may be at it.
    "push.blob_published",
    // A write quorum has the blob; the group does not know it yet.
    "push.before_blob_commit",
    // The group knows it; the client does not.
    "push.after_blob_commit",
    // The manifest is checked; nothing is proposed.
    "push.before_manifest",
    // It is committed; the client does not know.
    "push.after_manifest",
];

/// Steps of writing and publishing one blob, in order.
pub const BLOB_PUBLISH: &[&str] = &[
    // What goes around the page cache of a chunk is in the temporary file; its last bytes are not.
    "blob.after_direct_write",
    // A chunk is in the temporary file, unsynced.
    "blob.after_write",
    // All bytes are written and their digest is right; nothing is synced.
    "blob.before_file_sync",
    // The temporary file's bytes are durable.
    "blob.after_file_sync",
    // The directory of the digest exists and is durable.
    "blob.before_rename",
    // The file has its final name, which is not yet durable.
    "blob.after_rename",
    // The final name is durable.
    "blob.after_dir_sync",
];

/// Steps of replacing one small file, in order.
pub const ATOMIC_WRITE: &[&str] = &[
    "atomic_write.after_write",
    "atomic_write.after_file_sync",
    "atomic_write.after_rename",
    "atomic_write.after_dir_sync",
];

/// Steps of moving a corrupt blob out of the way, in order.
pub const QUARANTINE: &[&str] =
    &["quarantine.before_rename", "quarantine.after_rename", "quarantine.after_dir_sync"];

/// Steps of removing the file of a blob that nobody knows, in order.
pub const COLLECT: &[&str] = &["collect.before_unlink", "collect.after_unlink"];

/// Steps of writing a checkpoint, in order.
pub const CHECKPOINT: &[&str] = &["checkpoint.after_create", "checkpoint.after_sync"];

/// Marks that the place `name` is reached.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &'static str) {}

/// Marks that the place `name` is reached; aborts the process if `TERCET_FAILPOINT` says so.
#[cfg(feature = "failpoints")]
pub fn hit(name: &'static str) {
    armed::hit(name);
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::{Arc, OnceLock};

    use fail_parallel::{FailPointRegistry, cfg, eval};

    /// What `TERCET_FAILPOINT` asked for; `None` if nothing.
    static REGISTRY: OnceLock<Option<Arc<FailPointRegistry>>> = OnceLock::new();

    pub(super) fn hit(name: &'static str) {
        let Some(registry) = REGISTRY.get_or_init(arm) else { return };
        // `return` is the action that hands over to us; all others (`sleep(500)`) it does itself.
        eval(Arc::clone(registry), name, |_| {
            eprintln!("tercet: failpoint {name} reached: aborting");
            std::process::abort()
        });
    }

    fn arm() -> Option<Arc<FailPointRegistry>> {
        let text = std::env::var("TERCET_FAILPOINT").ok()?;
        let registry = Arc::new(FailPointRegistry::new());
        for point in text.split(';').filter(|point| !point.is_empty()) {
            let (name, actions) = match (point.split_once('='), point.split_once(':')) {
                (Some((name, actions)), _) => (name, actions.to_owned()),
                (None, Some((name, count))) => (name, abort_at(count)),
                (None, None) => (point, abort_at("1")),
            };
            // A test that asks for what does not exist must not pass because nothing happens.
            if let Err(error) = cfg(Arc::clone(&registry), name, &actions) {
                eprintln!("tercet: TERCET_FAILPOINT: {point}: {error}");
                std::process::abort();
            }
        }
        Some(registry)
    }

    fn abort_at(count: &str) -> String {
        match count.parse::<u64>().unwrap_or(1).saturating_sub(1) {
            0 => "return".to_owned(),
            before => format!("{before}*off->return"),
        }
    }
}
