//! The only place that builds paths.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::upload_id::UploadId;
use crate::durable::{create_dir_durable, remove_stray_temporaries};
use crate::error::StorageError;
use crate::{Algorithm, Digest};

/// The data directory of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The data directory at `root`; touches nothing.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the directory if needed, takes its lock, and removes what a crash left of an
    /// [`crate::atomic_write`] in it. The lock ends with the guard or with the process, however that ends.
    pub fn lock(&self) -> Result<DirectoryLock, StorageError> {
        create_dir_durable(&self.root)?;
        let lock = self.lock_as_is()?;
        remove_stray_temporaries(&self.root)?;
        Ok(lock)
    }

    /// Takes the lock of a directory that is there, and changes nothing else in it.
    pub fn lock_as_is(&self) -> Result<DirectoryLock, StorageError> {
        let path = self.lock_file();
        let mut open = File::options();
        open.read(true).write(true).create(true).truncate(false);
        let file = open.open(&path).map_err(StorageError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::Locked { path }),
            Err(TryLockError::Error(error)) => return Err(StorageError::io("lock", &path)(error)),
        }
        Ok(DirectoryLock { _file: file })
    }

    /// `identity.json`: who this replica is.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    /// `log`: the database of the Raft log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// `state`: the database of the state machine.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// `blobs`: published content.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// `uploads`: content that is arriving.
    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// `quarantine`: content that failed verification.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// `snapshots`: checkpoints in transit.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// `reserve`: bytes that are given up when the volume is full.
    #[must_use]
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    /// `scrub.json`: how far the reading of all blobs has come.
    #[must_use]
    pub fn scrub(&self) -> PathBuf {
        self.root.join("scrub.json")
    }

    /// `edge-uses`: what an edge keeps, in the order of its last use.
    #[must_use]
    pub fn edge_uses(&self) -> PathBuf {
        self.root.join("edge-uses")
    }

    /// `lock`: the file that one process holds locked.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The file of a blob: `blobs/<algorithm>/<first two>/<hex>`.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let shard = hex.get(..2).unwrap_or_default();
        self.blob_shard(digest.algorithm(), shard).join(&hex)
    }

    pub(super) fn blob_shard(&self, algorithm: Algorithm, shard: &str) -> PathBuf {
        self.blobs().join(algorithm.name()).join(shard)
    }

    pub(super) fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads().join(id.to_string())
    }

    pub(super) fn upload_data(upload: &Path) -> PathBuf {
        upload.join("data")
    }

    pub(super) fn upload_meta(upload: &Path) -> PathBuf {
        upload.join("meta.json")
    }

    /// A new name for something that is removed if the process does not live to finish it.
    pub(super) fn temporary(&self) -> PathBuf {
        self.uploads().join(format!("{TEMPORARY_PREFIX}{:032x}", rand::random::<u128>()))
    }

    pub(super) fn is_temporary(name: &str) -> bool {
        name.starts_with(TEMPORARY_PREFIX)
    }

    /// Where a corrupt file goes, and the note that says why.
    #[must_use]
    pub fn quarantined(&self, digest: &Digest, now_ms: u64) -> (PathBuf, PathBuf) {
        let name = format!("{}-{}-{now_ms}", digest.algorithm(), digest.hex());
        let directory = self.quarantine();
        (directory.join(&name), directory.join(format!("{name}{QUARANTINE_NOTE_SUFFIX}")))
    }
}

/// What a quarantined file's note is called beyond the file's own name.
pub(super) const QUARANTINE_NOTE_SUFFIX: &str = ".reason";

const TEMPORARY_PREFIX: &str = "tmp-";

/// Holds the lock of a data directory.
#[derive(Debug)]
#[must_use = "the directory is locked only while this is kept"]
pub struct DirectoryLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn paths_are_those_of_the_design() {
        let dir = DataDir::new("/data");
        let digest = Digest::of(Algorithm::Sha256, b"");
        let hex = digest.hex();
        assert_eq!(dir.blob(&digest), Path::new("/data/blobs/sha256/e3").join(hex));
        assert_eq!(dir.identity(), Path::new("/data/identity.json"));
        let id = UploadId::new(7);
        assert_eq!(dir.upload(&id), Path::new("/data/uploads").join(id.to_string()));
    }

    #[test]
    fn second_lock_is_refused_until_the_first_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::new(root.path().join("new/data"));
        let lock = dir.lock().unwrap();
        assert!(matches!(dir.lock(), Err(StorageError::Locked { .. })));
        drop(lock);
        let _lock = dir.lock().unwrap();
    }
}
