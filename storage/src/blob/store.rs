//! The blob store of one replica.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffers::Buffers;
use super::layout::DataDir;
use super::locks::DigestLocks;
use super::pending::blocking;
use super::pins::Pins;
use super::space::{self, Space, SpaceGate};
use super::upload::remove_stray_uploads;
use super::upload_id::UploadId;
use super::verification::Verifications;
use super::verified::Verified;
use crate::durable::{create_dir_durable, sync_parent};
use crate::error::StorageError;
use crate::{Algorithm, Digest};

/// Where and how a store keeps its files.
#[derive(Clone, Debug)]
pub struct BlobStoreOptions {
    /// The data directory. The store uses `blobs`, `uploads` and `quarantine` in it. The caller holds its lock.
    pub root: PathBuf,
    /// Writes are refused when the volume would be used to this percentage or more. 100 refuses only at the
    /// very end.
    pub refuse_percent: u8,
    /// Bytes of the volume that are never given to content.
    pub headroom_bytes: u64,
}

/// Published blobs and open uploads of one replica. Clones share one store.
#[derive(Clone, Debug)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: DataDir,
    pub(super) gate: Arc<SpaceGate>,
    /// Held to publish, delete or quarantine a digest.
    pub(super) locks: DigestLocks,
    /// Files that are being read for the first time, so that many readers verify them once.
    pub(super) verifications: Verifications,
    pub(super) verified: Verified,
    /// For blocks on their way out.
    pub(super) buffers: Buffers,
    /// What was published a moment ago.
    pub(super) pins: Pins,
    open_uploads: Mutex<HashSet<UploadId>>,
}

impl BlobStore {
    /// Opens the store, creates its directories and removes what a crash left half done.
    pub fn open(options: BlobStoreOptions) -> Result<Self, StorageError> {
        let dir = DataDir::new(options.root);
        create_dir_durable(&dir.uploads())?;
        create_dir_durable(&dir.quarantine())?;
        for algorithm in Algorithm::ALL {
            create_dir_durable(&dir.blobs().join(algorithm.name()))?;
        }
        remove_stray_uploads(&dir)?;
        let gate = SpaceGate::new(
            dir.root().to_owned(),
            options.refuse_percent,
            options.headroom_bytes,
            space::statvfs,
        );
        let inner = Inner {
            dir,
            gate,
            locks: DigestLocks::new(),
            verifications: Verifications::default(),
            verified: Verified::default(),
            buffers: Buffers::default(),
            pins: Pins::default(),
            open_uploads: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The size in bytes of a published blob.
    pub async fn size_of(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        let path = self.inner.dir.blob(digest);
        blocking("stat blob", move || match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("stat", &path)(error)),
        })
        .await
    }

    /// Removes a blob, durably. Returns whether there was one.
    pub async fn delete(&self, digest: &Digest) -> Result<bool, StorageError> {
        let (store, digest) = (Arc::clone(&self.inner), digest.clone());
        let guard = store.locks.lock(&digest).await;
        blocking("delete blob", move || {
            let _guard = guard;
            let path = store.dir.blob(&digest);
            store.verified.remove(&digest);
            match fs::remove_file(&path) {
                Ok(()) => sync_parent(&path).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(StorageError::io("remove", &path)(error)),
            }
        })
        .await
    }

    /// How full the volume is. One system call: it may be made from async code.
    pub fn space(&self) -> Result<Space, StorageError> {
        self.inner.gate.space()
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    /// A set of ids has no half-written state that a panic could leave.
    pub(super) fn open_uploads(&self) -> MutexGuard<'_, HashSet<UploadId>> {
        self.open_uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
