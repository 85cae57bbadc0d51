//! What the file system says of a published blob.

use std::fs;
use std::io;
use std::time::UNIX_EPOCH;

use super::pending::blocking;
use super::store::BlobStore;
use crate::Digest;
use crate::clock::unix_ms;
use crate::error::StorageError;

/// Size and time of a published blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobStat {
    /// In bytes.
    pub size: u64,
    /// When it was published, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

impl BlobStore {
    /// Size and time of a published blob, `None` if there is none.
    pub async fn stat(&self, digest: &Digest) -> Result<Option<BlobStat>, StorageError> {
        let path = self.inner().dir.blob(digest);
        blocking("stat blob", move || match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then(|| BlobStat {
                size: metadata.len(),
                modified_ms: unix_ms(metadata.modified().unwrap_or(UNIX_EPOCH)),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io("stat", &path)(error)),
        })
        .await
    }
}
