use std::fs;
use std::future::Future as _;
use std::task::{Context, Waker};

use bytes::Bytes;
use tercet_storage::{Algorithm, DataDir, Digest, StorageError, UploadId, UploadMeta};

use crate::support::{content, files, open_store, publish, read, sha256, uploads_left};

fn meta() -> UploadMeta {
    UploadMeta {
        repository: "library/alpine".parse().unwrap(),
        algorithm: Algorithm::Sha256,
        created_ms: 17,
        fence: Default::default(),
    }
}

#[tokio::test]
async fn upload_in_pieces_becomes_a_blob_and_leaves_no_session() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let id = UploadId::new(1);
    let mut upload = store.create_upload(&id, meta()).await.unwrap();
    let bytes = content(500_000);
    for chunk in bytes.chunks(70_000) {
        upload.append(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(upload.offset(), 500_000);
    assert_eq!(upload.finish(&sha256(&bytes)).await.unwrap(), 500_000);
    assert_eq!(read(&store, &sha256(&bytes)).await.unwrap(), bytes);
    assert_eq!(uploads_left(root.path()), 0);
    assert!(store.open_upload(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn upload_resumes_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let id = UploadId::new(1);
    let bytes = content(300_000);
    let store = open_store(root.path());
    let mut upload = store.create_upload(&id, meta()).await.unwrap();
    upload.append(Bytes::copy_from_slice(&bytes[..123_456])).await.unwrap();
    drop(upload);
    let store = open_store(root.path());
    let listed = store.list_uploads().await.unwrap();
    assert_eq!((listed[0].id, listed[0].offset, &listed[0].meta), (id, 123_456, &meta()));
    let mut upload = store.open_upload(&id).await.unwrap().unwrap();
    assert_eq!((upload.offset(), upload.repository().as_str()), (123_456, "library/alpine"));
    upload.append(Bytes::copy_from_slice(&bytes[123_456..])).await.unwrap();
    upload.finish(&sha256(&bytes)).await.unwrap();
    assert_eq!(read(&store, &sha256(&bytes)).await.unwrap(), bytes);
}

#[tokio::test]
async fn mismatch_removes_the_upload() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut upload = store.create_upload(&UploadId::new(1), meta()).await.unwrap();
    upload.append(Bytes::from_static(b"wrong")).await.unwrap();
    let error = upload.finish(&sha256(b"right")).await.unwrap_err();
    assert!(matches!(error, StorageError::DigestMismatch { .. }));
    assert!(files(root.path()).is_empty());
    assert_eq!(uploads_left(root.path()), 0);
}

#[tokio::test]
async fn another_algorithm_at_the_end_is_verified_by_reading_again() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut upload = store.create_upload(&UploadId::new(1), meta()).await.unwrap();
    upload.append(Bytes::from_static(b"content")).await.unwrap();
    let digest = Digest::of(Algorithm::Sha512, b"content");
    upload.finish(&digest).await.unwrap();
    assert_eq!(read(&store, &digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn empty_upload_is_the_empty_blob() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let upload = store.create_upload(&UploadId::new(1), meta()).await.unwrap();
    assert_eq!(upload.finish(&sha256(b"")).await.unwrap(), 0);
    assert_eq!(read(&store, &sha256(b"")).await.unwrap(), b"");
}

#[tokio::test]
async fn upload_of_a_published_blob_just_ends() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    publish(&store, b"content").await;
    let mut upload = store.create_upload(&UploadId::new(1), meta()).await.unwrap();
    upload.append(Bytes::from_static(b"content")).await.unwrap();
    assert_eq!(upload.finish(&sha256(b"content")).await.unwrap(), 7);
    assert_eq!((files(root.path()).len(), uploads_left(root.path())), (1, 0));
}

#[tokio::test]
async fn truncation_forgets_the_end_and_its_hash() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let id = UploadId::new(1);
    let mut upload = store.create_upload(&id, meta()).await.unwrap();
    upload.append(Bytes::from_static(b"keep, forget")).await.unwrap();
    let error = upload.truncate_to(13).await.unwrap_err();
    assert!(matches!(error, StorageError::UploadOffset { wanted: 13, actual: 12, .. }));
    upload.truncate_to(12).await.unwrap();
    upload.truncate_to(4).await.unwrap();
    assert_eq!(upload.offset(), 4);
    upload.append(Bytes::from_static(b"!")).await.unwrap();
    upload.finish(&sha256(b"keep!")).await.unwrap();
    assert_eq!(read(&store, &sha256(b"keep!")).await.unwrap(), b"keep!");
}

#[tokio::test]
async fn session_has_one_user_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let id = UploadId::new(1);
    let upload = store.create_upload(&id, meta()).await.unwrap();
    assert!(matches!(store.open_upload(&id).await, Err(StorageError::UploadBusy(_))));
    assert!(matches!(store.remove_upload(&id).await, Err(StorageError::UploadBusy(_))));
    drop(upload);
    assert!(matches!(store.create_upload(&id, meta()).await, Err(StorageError::UploadExists(_))));
    assert!(store.remove_upload(&id).await.unwrap());
    assert!(!store.remove_upload(&id).await.unwrap());
    let upload = store.create_upload(&id, meta()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(store.open_upload(&id).await.unwrap().is_none());
    assert_eq!(uploads_left(root.path()), 0);
}

#[tokio::test]
async fn client_that_goes_away_in_a_write_breaks_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let mut upload = store.create_upload(&UploadId::new(1), meta()).await.unwrap();
    let first = vec![7; 4 * 1024 * 1024];
    {
        let mut append = std::pin::pin!(upload.append(Bytes::from(first.clone())));
        // Started, and dropped before it says that it is done. Should the disk have been faster, what
        // follows must hold all the same.
        let _ = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    assert_eq!(upload.settle().await.unwrap(), first.len() as u64);
    upload.append(Bytes::from_static(b"second")).await.unwrap();
    upload.finish(&sha256(&[first.as_slice(), b"second"].concat())).await.unwrap();
}

#[tokio::test]
async fn unusable_sessions_are_removed_at_the_start_and_foreign_files_are_not() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let kept = UploadId::new(1);
    drop(store.create_upload(&kept, meta()).await.unwrap());
    let uploads = DataDir::new(root.path()).uploads();
    let (no_meta, no_data, torn) = (UploadId::new(2), UploadId::new(3), UploadId::new(4));
    for (id, meta, data) in
        [(no_meta, None, true), (no_data, Some("x"), false), (torn, Some("{\"rep"), true)]
    {
        let path = uploads.join(id.to_string());
        fs::create_dir(&path).unwrap();
        if let Some(meta) = meta {
            fs::write(path.join("meta.json"), meta).unwrap();
        }
        if data {
            fs::write(path.join("data"), b"data").unwrap();
        }
    }
    fs::create_dir(uploads.join("tmp-0123")).unwrap();
    fs::write(uploads.join("tmp-4567"), b"half").unwrap();
    fs::write(uploads.join("README"), b"foreign").unwrap();
    let store = open_store(root.path());
    let ids: Vec<_> = store.list_uploads().await.unwrap().into_iter().map(|info| info.id).collect();
    assert_eq!(ids, [kept]);
    assert_eq!(uploads_left(root.path()), 2);
}
