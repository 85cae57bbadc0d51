use std::fs;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use tercet_storage::{Algorithm, BlobStore, BlobStoreOptions, DataDir, Digest, StorageError};

use crate::support::{
    content, drain, files, open_store, publish, quarantined, read, sha256, uploads_left,
};

#[tokio::test]
async fn published_blob_is_read_back_and_survives_a_restart() {
    let root = tempfile::tempdir().unwrap();
    for length in [0, 1, 256 * 1024, 256 * 1024 + 1, 700_000] {
        let store = open_store(root.path());
        let bytes = content(length);
        let digest = publish(&store, &bytes).await;
        let reopened = open_store(root.path());
        assert_eq!(reopened.size_of(&digest).await.unwrap(), Some(length as u64));
        assert_eq!(read(&reopened, &digest).await.unwrap(), bytes);
    }
    assert_eq!(uploads_left(root.path()), 0);
}

#[tokio::test]
async fn absent_blob_is_none() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = sha256(b"absent");
    assert_eq!(store.size_of(&digest).await.unwrap(), None);
    assert!(store.reader(&digest, None).await.unwrap().is_none());
    assert!(!store.delete(&digest).await.unwrap());
    store.quarantine(&digest, "test").await.unwrap();
}

#[tokio::test]
async fn wrong_content_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut writer = store.writer(sha256(b"right"), None).await.unwrap();
    writer.append(Bytes::from_static(b"wrong")).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(
        matches!(error, StorageError::DigestMismatch { actual, .. } if actual == sha256(b"wrong"))
    );
    assert!(files(root.path()).is_empty());
}

#[tokio::test]
async fn wrong_size_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut long = store.writer(sha256(b"12345"), Some(4)).await.unwrap();
    let error = long.append(Bytes::from_static(b"12345")).await.unwrap_err();
    assert!(matches!(error, StorageError::SizeMismatch { expected: 4, actual: 5, .. }));
    drop(long);
    let mut short = store.writer(sha256(b"12345"), Some(6)).await.unwrap();
    short.append(Bytes::from_static(b"12345")).await.unwrap();
    assert!(matches!(short.finish().await, Err(StorageError::SizeMismatch { .. })));
    assert!(files(root.path()).is_empty());
}

#[tokio::test]
async fn dropped_writer_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut writer = store.writer(sha256(b"x"), None).await.unwrap();
    writer.append(Bytes::from_static(b"half")).await.unwrap();
    assert_eq!(files(root.path()).len(), 1);
    drop(writer);
    assert!(files(root.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishes_of_one_digest_make_one_file() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let bytes = content(100_000);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (store, bytes) = (store.clone(), bytes.clone());
            tokio::spawn(async move { publish(&store, &bytes).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), sha256(&bytes));
    }
    assert_eq!(files(root.path()).len(), 1);
    assert_eq!(read(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn publishing_replaces_a_file_of_the_wrong_size() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, b"content").await;
    fs::write(DataDir::new(root.path()).blob(&digest), b"cut").unwrap();
    publish(&store, b"content").await;
    assert_eq!(read(&store, &digest).await.unwrap(), b"content");
}

/// A rotten file used to be taken for the content that a second push brought, and that push for safe.
#[tokio::test]
async fn publishing_replaces_a_rotten_file_of_the_right_size() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, b"content").await;
    fs::write(DataDir::new(root.path()).blob(&digest), b"rotten!").unwrap();
    publish(&store, b"content").await;
    assert_eq!(read(&store, &digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_and_refused_after_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let bytes = content(600_000);
    let digest = publish(&store, &bytes).await;
    for (start, end) in
        [(0, 1), (0, 600_000), (599_999, 600_000), (262_143, 524_289), (5, u64::MAX), (7, 7)]
    {
        let reader = store.reader(&digest, Some(start..end)).await.unwrap().unwrap();
        let range = reader.range();
        assert_eq!((reader.size(), range.start, range.end), (600_000, start, end.min(600_000)));
        let (read, ended) = drain(reader).await;
        ended.unwrap();
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert_eq!(read, bytes[range]);
    }
    let error = store.reader(&digest, Some(600_000..600_001)).await.unwrap_err();
    assert!(matches!(error, StorageError::Range { size: 600_000, .. }));
}

#[tokio::test]
async fn corrupt_blob_is_never_served_whole_and_is_quarantined() {
    // Every part of the file, the empty replacement included.
    for at in [Some(0), Some(300_000), Some(599_999), None] {
        let root = tempfile::tempdir().unwrap();
        let store = open_store(root.path());
        let bytes = content(600_000);
        let digest = publish(&store, &bytes).await;
        let path = DataDir::new(root.path()).blob(&digest);
        let file = fs::File::options().write(true).open(&path).unwrap();
        match at {
            Some(at) => file.write_all_at(&[255], at).unwrap(),
            None => file.set_len(0).unwrap(),
        }
        let (served, error) = match store.reader(&digest, None).await {
            Ok(reader) => {
                let (served, end) = drain(reader.unwrap()).await;
                (served, end.unwrap_err())
            }
            Err(error) => (Vec::new(), error),
        };
        assert!(matches!(error, StorageError::CorruptBlob { .. }), "{error}");
        assert!(served.len() < bytes.len());
        assert_eq!(store.size_of(&digest).await.unwrap(), None);
        assert_eq!(quarantined(root.path()), 1);
        // A good copy takes its place.
        publish(&store, &bytes).await;
        assert_eq!(read(&store, &digest).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn range_of_a_corrupt_blob_is_refused_also_after_it_was_verified() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(600_000)).await;
    let reader = store.reader(&digest, Some(10..20)).await.unwrap().unwrap();
    drain(reader).await.1.unwrap();
    let path = DataDir::new(root.path()).blob(&digest);
    fs::File::options().write(true).open(path).unwrap().write_all_at(&[255], 500_000).unwrap();
    let error = store.reader(&digest, Some(10..20)).await.unwrap_err();
    assert!(matches!(error, StorageError::CorruptBlob { .. }), "{error}");
    assert_eq!(quarantined(root.path()), 1);
}

#[tokio::test]
async fn old_reader_of_a_corrupt_file_does_not_quarantine_its_good_replacement() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let bytes = content(600_000);
    let digest = publish(&store, &bytes).await;
    let path = DataDir::new(root.path()).blob(&digest);
    fs::File::options().write(true).open(path).unwrap().write_all_at(&[255], 500_000).unwrap();
    let first = store.reader(&digest, None).await.unwrap().unwrap();
    let second = store.reader(&digest, None).await.unwrap().unwrap();
    assert!(drain(first).await.1.is_err());
    publish(&store, &bytes).await;
    assert!(drain(second).await.1.is_err());
    assert_eq!(read(&store, &digest).await.unwrap(), bytes);
    assert_eq!(quarantined(root.path()), 1);
}

#[tokio::test]
async fn deleted_blob_is_gone_but_finishes_for_its_readers() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let bytes = content(600_000);
    let digest = publish(&store, &bytes).await;
    let reader = store.reader(&digest, None).await.unwrap().unwrap();
    assert!(store.delete(&digest).await.unwrap());
    assert!(!store.delete(&digest).await.unwrap());
    assert_eq!(store.size_of(&digest).await.unwrap(), None);
    assert_eq!(drain(reader).await.0, bytes);
}

#[tokio::test]
async fn listing_pages_through_everything_in_order() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut expected = Vec::new();
    for n in 0..40_u8 {
        expected.push(publish(&store, &[n]).await);
    }
    let long = Digest::of(Algorithm::Sha512, b"x");
    let mut writer = store.writer(long.clone(), None).await.unwrap();
    writer.append(Bytes::from_static(b"x")).await.unwrap();
    writer.finish().await.unwrap();
    expected.push(long);
    expected.sort();
    // Somebody else's file is not a blob.
    fs::write(DataDir::new(root.path()).blob(&expected[0]).with_file_name("note"), b"").unwrap();
    for limit in [1, 7, 41, 1000] {
        let mut found: Vec<Digest> = Vec::new();
        loop {
            let page = store.list(found.last(), limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            found.extend(page);
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn full_volume_refuses_writers_and_uploads_and_keeps_reading() {
    let root = tempfile::tempdir().unwrap();
    let digest = publish(&open_store(root.path()), b"content").await;
    let options = BlobStoreOptions {
        root: root.path().to_owned(),
        refuse_percent: 101,
        headroom_bytes: u64::MAX,
    };
    let store = BlobStore::open(options).unwrap();
    assert!(store.writer(sha256(b"x"), Some(1)).await.unwrap_err().is_no_space());
    assert!(store.writer(sha256(b"x"), None).await.unwrap_err().is_no_space());
    assert_eq!(read(&store, &digest).await.unwrap(), b"content");
    assert!(store.space().unwrap().total > 0);
    assert_eq!(uploads_left(root.path()), 0);
}
