use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tercet_storage::{
    Algorithm, BlobReader, BlobStore, BlobStoreOptions, DataDir, Digest, StorageError,
};

/// A store that never finds the test machine's disk too full.
pub(crate) fn open_store(root: &Path) -> BlobStore {
    let root = root.to_owned();
    BlobStore::open(BlobStoreOptions { root, refuse_percent: 101, headroom_bytes: 0 }).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Bytes that differ from chunk to chunk.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n / 7 + n / 4099) % 251).unwrap()).collect()
}

pub(crate) async fn publish(store: &BlobStore, bytes: &[u8]) -> Digest {
    let digest = sha256(bytes);
    let mut writer = store.writer(digest.clone(), Some(bytes.len() as u64)).await.unwrap();
    writer.append(Bytes::copy_from_slice(bytes)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), bytes.len() as u64);
    digest
}

/// What a client would get: the bytes, and how it ended.
pub(crate) async fn drain(reader: BlobReader) -> (Vec<u8>, Result<(), StorageError>) {
    let mut stream = std::pin::pin!(reader.into_stream());
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}

pub(crate) async fn read(store: &BlobStore, digest: &Digest) -> Option<Vec<u8>> {
    let reader = store.reader(digest, None).await.unwrap()?;
    let (bytes, end) = drain(reader).await;
    end.unwrap();
    Some(bytes)
}

/// Every file under the directories of blobs and uploads.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let dir = DataDir::new(root);
    let mut found = Vec::new();
    let mut open = vec![dir.blobs(), dir.uploads()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

/// What is in the directory of uploads, whatever it is.
pub(crate) fn uploads_left(root: &Path) -> usize {
    std::fs::read_dir(DataDir::new(root).uploads()).unwrap().count()
}

pub(crate) fn quarantined(root: &Path) -> usize {
    let directory = std::fs::read_dir(DataDir::new(root).quarantine()).unwrap();
    directory
        .filter(|entry| !entry.as_ref().unwrap().path().to_string_lossy().ends_with(".reason"))
        .count()
}
