//! Looks at published blobs: at many of them quickly, or at one so closely that others may rely on it.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use super::pending::blocking;
use super::store::BlobStore;
use crate::Digest;
use crate::durable::{sync_dir, sync_file};
use crate::error::StorageError;

impl BlobStore {
    /// The size in bytes of each of `digests` that is published, in their order, in one blocking task.
    pub async fn sizes_of(&self, digests: Vec<Digest>) -> Result<Vec<Option<u64>>, StorageError> {
        let store = Arc::clone(self.inner());
        let size = move |digest: &Digest| {
            let path = store.dir.blob(digest);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(StorageError::io("stat", &path)(error)),
            }
        };
        blocking("stat blobs", move || digests.iter().map(size).collect()).await
    }

    /// Whether a blob is here with all of its `size` bytes, every one of them read by this process and
    /// right, under a name that a power failure does not take away. Another replica may then do without
    /// its own copy. Reads the whole blob if this process has not done so yet.
    pub async fn confirm(&self, digest: &Digest, size: u64) -> Result<bool, StorageError> {
        let first_byte = (size > 0).then_some(0..1);
        match self.reader(digest, first_byte).await {
            Ok(Some(reader)) if reader.size() == size => {}
            // Wrong, and in quarantine by now.
            Ok(_) | Err(StorageError::CorruptBlob { .. } | StorageError::Range { .. }) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let (store, digest) = (Arc::clone(self.inner()), digest.clone());
        // Not while it is being deleted, replaced or moved away.
        let guard = store.locks.lock(&digest).await;
        blocking("confirm blob", move || {
            let _guard = guard;
            let path = store.dir.blob(&digest);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(StorageError::io("open", &path)(error)),
            };
            // Whoever published it may be about to make its name durable, and has not yet.
            sync_file(&file, &path);
            sync_dir(path.parent().unwrap_or(&path))?;
            Ok(true)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use bytes::Bytes;

    use super::*;
    use crate::{Algorithm, BlobStoreOptions, DataDir};

    fn store() -> (tempfile::TempDir, BlobStore) {
        let root = tempfile::tempdir().unwrap();
        let options = BlobStoreOptions {
            root: root.path().to_owned(),
            refuse_percent: 100,
            headroom_bytes: 0,
        };
        let store = BlobStore::open(options).unwrap();
        (root, store)
    }

    async fn put(store: &BlobStore, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let size = Some(content.len() as u64);
        let mut writer = store.writer(digest.clone(), size).await.unwrap();
        writer.append(Bytes::from_static(content)).await.unwrap();
        writer.finish().await.unwrap();
        digest
    }

    #[tokio::test]
    async fn each_is_told_in_its_place() {
        let (_root, store) = store();
        let (one, two) = (put(&store, b"one").await, put(&store, b"twos").await);
        let absent = Digest::of(Algorithm::Sha512, b"absent");
        let sizes = store.sizes_of(vec![two, absent, one]).await.unwrap();
        assert_eq!(sizes, [Some(4), None, Some(3)]);
    }

    #[tokio::test]
    async fn only_the_right_bytes_are_confirmed() {
        let (root, store) = store();
        for content in [b"".as_slice(), b"right"] {
            let digest = put(&store, content).await;
            assert!(store.confirm(&digest, content.len() as u64).await.unwrap());
            assert!(!store.confirm(&digest, content.len() as u64 + 1).await.unwrap());
        }
        let absent = Digest::of(Algorithm::Sha256, b"absent");
        assert!(!store.confirm(&absent, 6).await.unwrap());
        // As long as it should be, and wrong.
        let path = DataDir::new(root.path()).blob(&Digest::of(Algorithm::Sha256, b"right"));
        fs::write(&path, b"wrong").unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"right");
        assert!(!store.confirm(&digest, 5).await.unwrap());
        assert_eq!(store.size_of(&digest).await.unwrap(), None);
    }
}
