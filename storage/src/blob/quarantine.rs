//! Moves content that failed verification out of the way, and keeps it as evidence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::layout::QUARANTINE_NOTE_SUFFIX;
use super::locks::DigestGuard;
use super::pending::blocking;
use super::store::{BlobStore, Inner};
use super::verified::FileIdentity;
use crate::clock::unix_ms;
use crate::durable::{sync_dir, sync_parent};
use crate::error::StorageError;
use crate::{Digest, failpoint};

/// The most files kept as evidence; the oldest makes room for the newest.
const QUARANTINED_MAX: usize = 64;

impl BlobStore {
    /// Moves a blob into quarantine, with a note that says why. Absent is fine.
    pub async fn quarantine(&self, digest: &Digest, reason: &str) -> Result<(), StorageError> {
        quarantine(self.inner(), digest, None, reason).await
    }
}

/// Moves the blob away if it is still the file `seen` by the reader that found it corrupt: another may have
/// replaced it by a good copy meanwhile.
pub(super) async fn quarantine(
    store: &Arc<Inner>,
    digest: &Digest,
    seen: Option<FileIdentity>,
    reason: &str,
) -> Result<(), StorageError> {
    let (store, digest, reason) = (Arc::clone(store), digest.clone(), reason.to_owned());
    let guard = store.locks.lock(&digest).await;
    blocking("quarantine blob", move || {
        let path = store.dir.blob(&digest);
        store.verified.remove(&digest);
        let identity = match fs::symlink_metadata(&path) {
            Ok(metadata) => FileIdentity::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StorageError::io("stat", &path)(error)),
        };
        if seen.is_some_and(|seen| !seen.same_file(&identity)) {
            return Ok(());
        }
        tracing::error!(%digest, %reason, "moving a corrupt blob to quarantine");
        move_away(&store, &digest, &path, &reason, &guard)
    })
    .await
}

fn move_away(
    store: &Inner,
    digest: &Digest,
    path: &Path,
    reason: &str,
    _guard: &DigestGuard,
) -> Result<(), StorageError> {
    make_room(&store.dir.quarantine())?;
    let (target, note) = store.dir.quarantined(digest, unix_ms(SystemTime::now()));
    failpoint::hit("quarantine.before_rename");
    fs::rename(path, &target).map_err(StorageError::io("rename to", &target))?;
    failpoint::hit("quarantine.after_rename");
    // The corrupt content must not be under its digest again after a power failure.
    sync_dir(&store.dir.quarantine())?;
    sync_parent(path)?;
    failpoint::hit("quarantine.after_dir_sync");
    // Evidence only: a full disk must not turn into an error here.
    if let Err(error) = fs::write(&note, reason) {
        tracing::warn!(path = %note.display(), %error, "cannot write the reason of a quarantine");
    }
    Ok(())
}

fn make_room(directory: &Path) -> Result<(), StorageError> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let entry = entry.map_err(StorageError::io("list", directory))?;
        let path = entry.path();
        let is_note = path.to_string_lossy().ends_with(QUARANTINE_NOTE_SUFFIX);
        if let (false, Ok(metadata)) = (is_note, entry.metadata()) {
            files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    files.sort();
    let surplus = (files.len() + 1).saturating_sub(QUARANTINED_MAX);
    for (_, path) in files.into_iter().take(surplus) {
        fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
        let mut note = path.into_os_string();
        note.push(QUARANTINE_NOTE_SUFFIX);
        fs::remove_file(note).ok();
    }
    Ok(())
}
