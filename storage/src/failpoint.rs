//! Places where a test can make the process crash. Without the cargo feature `failpoints` they compile to
//! nothing.
//!
//! With it, `TERCET_FAILPOINT=name` aborts the process the first time the place `name` is reached, and
//! `TERCET_FAILPOINT=name:3` the third time. The names are in [`BLOB_PUBLISH`], [`ATOMIC_WRITE`],
//! [`QUARANTINE`] and [`CHECKPOINT`].

/// Steps of writing and publishing one blob, in order.
pub const BLOB_PUBLISH: &[&str] = &[
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
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        name: String,
        remaining: AtomicU64,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub(super) fn hit(name: &'static str) {
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("TERCET_FAILPOINT").ok()?;
            let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
            Some(Armed {
                name: name.to_owned(),
                remaining: AtomicU64::new(count.parse().unwrap_or(1)),
            })
        });
        if let Some(armed) = armed
            && armed.name == name
            && armed.remaining.fetch_sub(1, Ordering::Relaxed) == 1
        {
            eprintln!("tercet: failpoint {name} reached: aborting");
            std::process::abort();
        }
    }
}
