//! Removes the files of blobs that nobody knows.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::locks::DigestGuard;
use super::pending::blocking;
use super::store::{BlobStore, Inner};
use super::verified::FileIdentity;
use crate::error::StorageError;
use crate::planted::{PlantedBug, is_planted};
use crate::{Digest, failpoint};

/// What the catalogue says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a record, or that cannot be told.
    Known,
    /// It has none.
    Unknown,
}

/// What became of a file that might go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// It is removed.
    Removed {
        /// Its size in bytes.
        bytes: u64,
    },
    /// There was none.
    Absent,
    /// The catalogue knows the blob (again): it stays.
    Known,
    /// It was published too short a while ago: whoever did may be about to make it known. It stays.
    Young,
}

impl BlobStore {
    /// Removes the file of a blob that nobody knows, unless it was published, or found in place by a push,
    /// within the last `min_age`.
    ///
    /// `standing` is asked while the digest is locked, so that what it says cannot be overtaken: a push that
    /// comes later waits for the lock and finds no file, one that came before has made the file young.
    ///
    /// What is removed is not synced: a file that a power failure brings back is an orphan and goes again.
    pub async fn collect(
        &self,
        digest: &Digest,
        min_age: Duration,
        standing: impl FnOnce() -> Standing + Send + 'static,
    ) -> Result<Unlinked, StorageError> {
        let (store, digest) = (Arc::clone(self.inner()), digest.clone());
        if is_planted(PlantedBug::CollectWithoutRecheck) {
            return blocking("collect blob", move || collect_blindly(&store, &digest)).await;
        }
        let guard = store.locks.lock(&digest).await;
        blocking("collect blob", move || collect(&store, &digest, min_age, standing, &guard)).await
    }

    /// The size of a published blob in bytes, which is as good as published anew from now on: its owner is
    /// about to make it known.
    pub async fn renew(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let (store, digest) = (Arc::clone(self.inner()), digest.clone());
        let guard = store.locks.lock(&digest).await;
        blocking("renew blob", move || {
            let path = store.dir.blob(&digest);
            let Some(metadata) = stat(&path)? else { return Ok(None) };
            let file = File::open(&path).map_err(StorageError::io("open", &path))?;
            touch(&store, &digest, &file, &path, &guard)?;
            Ok(Some(metadata.len()))
        })
        .await
    }
}

/// Makes a file in place count as published now. Not yet durable: the caller syncs the file if it promises
/// something about it.
pub(super) fn touch(
    store: &Inner,
    digest: &Digest,
    file: &File,
    path: &Path,
    _guard: &DigestGuard,
) -> Result<(), StorageError> {
    store.pins.pin(digest);
    let before = file.metadata().map_err(StorageError::io("stat", path))?;
    file.set_modified(SystemTime::now()).map_err(StorageError::io("stamp", path))?;
    // The bytes are those that were verified: only the stamp is another.
    let after = file.metadata().map_err(StorageError::io("stat", path))?;
    store.verified.stamped(digest, &FileIdentity::of(&before), FileIdentity::of(&after));
    Ok(())
}

fn collect(
    store: &Inner,
    digest: &Digest,
    min_age: Duration,
    standing: impl FnOnce() -> Standing,
    guard: &DigestGuard,
) -> Result<Unlinked, StorageError> {
    let path = store.dir.blob(digest);
    let Some(metadata) = stat(&path)? else { return Ok(Unlinked::Absent) };
    if standing() == Standing::Known {
        return Ok(Unlinked::Known);
    }
    if is_young(store, digest, &path, &metadata, min_age, guard)? {
        return Ok(Unlinked::Young);
    }
    store.verified.remove(digest);
    failpoint::hit("collect.before_unlink");
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Unlinked::Absent),
        Err(error) => return Err(StorageError::io("remove", &path)(error)),
    }
    failpoint::hit("collect.after_unlink");
    Ok(Unlinked::Removed { bytes: metadata.len() })
}

/// What collection must never be like. The pause lets a push of the same digest come in between.
#[allow(clippy::disallowed_methods)] // A planted bug, on a thread for blocking work.
fn collect_blindly(store: &Inner, digest: &Digest) -> Result<Unlinked, StorageError> {
    std::thread::sleep(Duration::from_millis(20));
    let path = store.dir.blob(digest);
    let Some(metadata) = stat(&path)? else { return Ok(Unlinked::Absent) };
    fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
    Ok(Unlinked::Removed { bytes: metadata.len() })
}

fn is_young(
    store: &Inner,
    digest: &Digest,
    path: &Path,
    metadata: &Metadata,
    min_age: Duration,
    guard: &DigestGuard,
) -> Result<bool, StorageError> {
    if store.pins.age(digest).is_some_and(|age| age < min_age) {
        return Ok(true);
    }
    let modified = metadata.modified().map_err(StorageError::io("stat", path))?;
    match SystemTime::now().duration_since(modified) {
        Ok(age) => Ok(age < min_age),
        Err(_) => {
            // From the future: some clock was or is wrong, and waiting for that day might mean never.
            let file = File::open(path).map_err(StorageError::io("open", path))?;
            touch(store, digest, &file, path, guard)?;
            Ok(true)
        }
    }
}

fn stat(path: &Path) -> Result<Option<Metadata>, StorageError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("stat", path)(error)),
    }
}
