//! A child process is aborted at every step of publishing; the parent then looks at what is on disk.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tercet_storage::{
    Algorithm, BlobStore, DataDir, Standing, StorageError, UploadFile, UploadId, UploadMeta,
    atomic_write, failpoint,
};

use crate::support::{
    content, files, open_store, publish, quarantined, read, sha256, uploads_left,
};

const ROOT: &str = "TERCET_CRASH_ROOT";

fn bytes() -> Vec<u8> {
    content(300_000)
}

/// Runs the test `child` of this binary in a process of its own. Returns whether it ended by itself.
fn run(child: &str, root: &Path, point: &str) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("crash::{child}"), "--nocapture"])
        .env(ROOT, root)
        .env("TERCET_FAILPOINT", point)
        .output()
        .unwrap()
        .status;
    status.success()
}

fn child_root() -> Option<std::path::PathBuf> {
    std::env::var_os(ROOT).map(Into::into)
}

async fn new_upload(store: &BlobStore) -> UploadFile {
    let repository = "a".parse().unwrap();
    let meta = UploadMeta {
        repository,
        algorithm: Algorithm::Sha256,
        created_ms: 0,
        fence: Default::default(),
    };
    store.create_upload(&UploadId::new(1), meta).await.unwrap()
}

#[tokio::test]
async fn child_publishes_an_upload() {
    let Some(root) = child_root() else { return };
    let store = open_store(&root);
    let mut upload = new_upload(&store).await;
    for chunk in bytes().chunks(100_000) {
        upload.append(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    upload.finish(&sha256(&bytes())).await.unwrap();
}

/// More than what goes through the page cache in any case, and no whole number of blocks.
fn large_bytes() -> Vec<u8> {
    content(7_000_001)
}

#[tokio::test]
async fn child_publishes_a_large_upload() {
    let Some(root) = child_root() else { return };
    let store = open_store(&root);
    let mut upload = new_upload(&store).await;
    for chunk in large_bytes().chunks(300_001) {
        upload.append(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    upload.finish(&sha256(&large_bytes())).await.unwrap();
}

#[tokio::test]
async fn child_writes_a_blob() {
    let Some(root) = child_root() else { return };
    publish(&open_store(&root), &bytes()).await;
}

#[tokio::test]
async fn child_quarantines() {
    let Some(root) = child_root() else { return };
    open_store(&root).quarantine(&sha256(&bytes()), "test").await.unwrap();
}

#[test]
fn child_replaces_a_file() {
    let Some(root) = child_root() else { return };
    atomic_write(&DataDir::new(root).identity(), b"new").unwrap();
}

#[tokio::test]
async fn crash_while_publishing_leaves_a_whole_blob_or_none() {
    let digest = sha256(&bytes());
    for child in ["child_publishes_an_upload", "child_writes_a_blob"] {
        for point in failpoint::BLOB_PUBLISH {
            let root = tempfile::tempdir().unwrap();
            assert!(!run(child, root.path(), point), "{point} was never reached by {child}");
            let store = open_store(root.path());
            let renamed = ["blob.after_rename", "blob.after_dir_sync"].contains(point);
            assert_eq!(
                store.size_of(&digest).await.unwrap().is_some(),
                renamed,
                "{child} at {point}"
            );
            let sessions = store.list_uploads().await.unwrap();
            assert_eq!(uploads_left(root.path()), sessions.len(), "strays of {child} at {point}");
            // A session outlives the crash with the bytes it had, and can be finished.
            assert_eq!(sessions.len(), usize::from(child.contains("upload") && !renamed));
            if let Some(session) = sessions.first() {
                let mut upload = store.open_upload(&session.id).await.unwrap().unwrap();
                let offset = usize::try_from(upload.offset()).unwrap();
                upload.append(Bytes::copy_from_slice(&bytes()[offset..])).await.unwrap();
                upload.finish(&digest).await.unwrap();
            } else {
                publish(&store, &bytes()).await;
            }
            assert_eq!(read(&store, &digest).await.unwrap(), bytes(), "{child} at {point}");
            assert_eq!(files(root.path()).len(), 1);
        }
    }
}

#[test]
fn crash_at_a_later_hit_keeps_what_came_before() {
    let root = tempfile::tempdir().unwrap();
    assert!(!run("child_publishes_an_upload", root.path(), "blob.after_write:2"));
    let sizes: Vec<_> =
        files(root.path()).iter().map(|path| std::fs::metadata(path).unwrap().len()).collect();
    assert!(sizes.contains(&200_000), "{sizes:?}");
}

/// Where the session on disk goes on with `content`, which must be right up to there.
async fn resumed_at(root: &Path, content: &[u8]) -> usize {
    let store = open_store(root);
    let id = store.list_uploads().await.unwrap()[0].id;
    let mut upload = store.open_upload(&id).await.unwrap().unwrap();
    let offset = usize::try_from(upload.offset()).unwrap();
    upload.append(Bytes::copy_from_slice(&content[offset..])).await.unwrap();
    upload.finish(&sha256(content)).await.unwrap();
    offset
}

#[tokio::test]
async fn a_crash_between_two_ways_of_writing_leaves_no_gap() {
    // The parts of a chunk before and after whole blocks take another way than these.
    for hit in [14, 15, 20] {
        // Not in memory, where some kernels have one way only.
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let point = format!("blob.after_direct_write:{hit}");
        assert!(!run("child_publishes_a_large_upload", root.path(), &point), "never reached");
        assert!(resumed_at(root.path(), &large_bytes()).await >= (hit - 1) * 300_001);
    }
}

#[tokio::test]
async fn an_upload_with_a_gap_goes_on_from_there() {
    let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    assert!(!run("child_publishes_a_large_upload", root.path(), "blob.after_write:2"));
    let data = files(root.path()).into_iter().max_by_key(|path| path.metadata().unwrap().len());
    // As if the power had failed before these were on the disk, and after what follows was.
    let file = std::fs::File::options().write(true).open(data.unwrap()).unwrap();
    let content = large_bytes();
    file.set_len(65_536).unwrap();
    file.write_all_at(&content[1 << 20..2 << 20], 1 << 20).unwrap();
    assert_eq!(resumed_at(root.path(), &content).await, 65_536);
}

#[test]
fn without_its_failpoint_the_child_ends_well() {
    let root = tempfile::tempdir().unwrap();
    assert!(run("child_writes_a_blob", root.path(), "no.such.point"));
}

#[tokio::test]
async fn crash_while_quarantining_leaves_the_blob_in_one_place() {
    for point in failpoint::QUARANTINE {
        let root = tempfile::tempdir().unwrap();
        let digest = publish(&open_store(root.path()), &bytes()).await;
        assert!(!run("child_quarantines", root.path(), point), "{point} was never reached");
        let store = open_store(root.path());
        let published = usize::from(store.size_of(&digest).await.unwrap().is_some());
        assert_eq!(published + quarantined(root.path()), 1, "{point}");
    }
}

#[tokio::test]
async fn child_collects() {
    let Some(root) = child_root() else { return };
    let store = open_store(&root);
    store.collect(&sha256(&bytes()), Duration::ZERO, || Standing::Unknown).await.unwrap();
}

#[tokio::test]
async fn crash_while_collecting_leaves_the_whole_file_or_none() {
    for point in failpoint::COLLECT {
        let root = tempfile::tempdir().unwrap();
        let digest = publish(&open_store(root.path()), &bytes()).await;
        assert!(!run("child_collects", root.path(), point), "{point} was never reached");
        let store = open_store(root.path());
        let left = store.size_of(&digest).await.unwrap();
        let expected = (*point == "collect.before_unlink").then_some(bytes().len() as u64);
        assert_eq!(left, expected, "{point}");
        // What is left goes at the next attempt, and a push makes it whole again either way.
        store.collect(&digest, Duration::ZERO, || Standing::Unknown).await.unwrap();
        assert!(files(root.path()).is_empty(), "{point}");
        publish(&store, &bytes()).await;
        assert_eq!(read(&store, &digest).await.unwrap(), bytes(), "{point}");
    }
}

#[test]
fn crash_while_replacing_a_file_leaves_the_old_or_the_new() {
    for point in failpoint::ATOMIC_WRITE {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::new(root.path());
        atomic_write(&dir.identity(), b"old").unwrap();
        assert!(!run("child_replaces_a_file", root.path(), point), "{point} was never reached");
        let lock = dir.lock().unwrap();
        let found = std::fs::read(dir.identity()).unwrap();
        let renamed = point.contains("rename") || point.contains("dir_sync");
        assert_eq!(found, if renamed { b"new" } else { b"old" }, "{point}");
        // The lock file and the identity: the half-written one is gone.
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2, "{point}");
        assert!(matches!(dir.lock(), Err(StorageError::Locked { .. })));
        drop(lock);
    }
}
