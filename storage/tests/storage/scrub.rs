use std::fs;
use std::os::unix::fs::FileExt as _;

use futures_util::StreamExt as _;
use tercet_storage::{Algorithm, BlobReader, Broken, DataDir, DigestHasher, StorageError, Verdict};

use crate::support::{content, open_store, publish, quarantined, read};

const CHUNK: usize = 256 * 1024;

/// What a client got before the read broke off, and how it did.
async fn drain(reader: BlobReader) -> (Vec<u8>, Broken) {
    let mut stream = std::pin::pin!(reader.into_content());
    let mut bytes = Vec::new();
    loop {
        match stream.next().await.unwrap() {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(broken) => return (bytes, broken),
        }
    }
}

fn hash(bytes: &[u8]) -> DigestHasher {
    let mut hasher = DigestHasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    hasher
}

#[tokio::test]
async fn a_file_that_ends_early_says_where_to_go_on() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let bytes = content(5 * CHUNK);
    let digest = publish(&store, &bytes).await;
    let reader = store.reader(&digest, None).await.unwrap().unwrap();
    let file =
        fs::File::options().write(true).open(DataDir::new(root.path()).blob(&digest)).unwrap();
    file.set_len(3 * CHUNK as u64 + 10).unwrap();
    let (got, broken) = drain(reader).await;
    assert!(matches!(broken.error, StorageError::CorruptBlob { .. }), "{broken:?}");
    assert_eq!(got, bytes[..3 * CHUNK]);
    let rest = broken.rest.unwrap();
    assert_eq!(rest.range, 3 * CHUNK as u64..5 * CHUNK as u64);
    let mut hasher = rest.hasher.unwrap();
    hasher.update(&bytes[3 * CHUNK..]);
    assert_eq!(hasher.finish(), digest, "the hash goes on where the read stopped");
    assert_eq!(quarantined(root.path()), 1);
}

#[tokio::test]
async fn wrong_bytes_of_which_some_are_out_cannot_be_made_good() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(2 * CHUNK)).await;
    let path = DataDir::new(root.path()).blob(&digest);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rot", 5).unwrap();
    let (got, broken) = drain(store.reader(&digest, None).await.unwrap().unwrap()).await;
    assert_eq!(got.len(), CHUNK);
    assert!(broken.rest.is_none());

    // One chunk only: nothing is out yet.
    let digest = publish(&store, &content(CHUNK)).await;
    let path = DataDir::new(root.path()).blob(&digest);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rot", 5).unwrap();
    let (got, broken) = drain(store.reader(&digest, None).await.unwrap().unwrap()).await;
    assert!(got.is_empty());
    let rest = broken.rest.unwrap();
    assert_eq!(rest.range, 0..CHUNK as u64);
    assert_eq!(rest.hasher.unwrap().finish(), hash(b"").finish());
}

#[tokio::test]
async fn inspection_finds_rot_and_keeps_it_as_evidence() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let good = publish(&store, &content(3_000_000)).await;
    let rotten = publish(&store, &content(2_000_000)).await;
    let path = DataDir::new(root.path()).blob(&rotten);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rot", 1_999_000).unwrap();
    for (digest, is_good) in [(&good, true), (&rotten, false)] {
        let mut inspection = store.inspect(digest).await.unwrap().unwrap();
        let mut bytes = 0;
        loop {
            match inspection.advance().await.unwrap() {
                0 => break,
                read => bytes += read,
            }
        }
        match inspection.verdict().await.unwrap() {
            Verdict::Good { size } => {
                assert!(is_good);
                assert_eq!(bytes as u64, size);
            }
            Verdict::Corrupt { reason } => {
                assert!(!is_good);
                assert!(reason.contains("has digest"), "{reason}");
            }
        }
    }
    assert!(read(&store, &good).await.is_some());
    assert!(read(&store, &rotten).await.is_none());
    assert_eq!(quarantined(root.path()), 1);
    assert!(store.inspect(&rotten).await.unwrap().is_none());
}

#[tokio::test]
async fn a_copy_that_came_during_the_inspection_is_not_condemned_with_the_old_one() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let bytes = content(1_000_000);
    let digest = publish(&store, &bytes).await;
    let path = DataDir::new(root.path()).blob(&digest);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"rot", 5).unwrap();
    let mut inspection = store.inspect(&digest).await.unwrap().unwrap();
    while inspection.advance().await.unwrap() > 0 {}
    // Repair publishes a good copy in its place.
    publish(&store, &bytes).await;
    assert!(matches!(inspection.verdict().await.unwrap(), Verdict::Corrupt { .. }));
    assert_eq!(read(&store, &digest).await.unwrap(), bytes);
}
