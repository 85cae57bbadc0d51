//! Files that nobody knows go; files of a push that is about to be known do not.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tercet_storage::{
    Algorithm, BlobStore, DataDir, Digest, Standing, StorageError, Unlinked, UploadId, UploadMeta,
};

use crate::support::{content, drain, files, open_store, publish, read, sha256};

const HOUR: Duration = Duration::from_secs(3600);

async fn collect(store: &BlobStore, digest: &Digest, standing: Standing) -> Unlinked {
    store.collect(digest, HOUR, move || standing).await.unwrap()
}

fn modified(root: &Path, digest: &Digest) -> SystemTime {
    std::fs::metadata(DataDir::new(root).blob(digest)).unwrap().modified().unwrap()
}

/// The file looks as if it was published so long ago, to a store that is opened afterwards too.
fn age(root: &Path, digest: &Digest, by: Duration) {
    let file = File::open(DataDir::new(root).blob(digest)).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

/// As after a restart: what was in memory is forgotten.
fn reopen(root: &Path, store: BlobStore) -> BlobStore {
    drop(store);
    open_store(root)
}

#[tokio::test]
async fn an_old_file_that_nobody_knows_goes() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    age(root.path(), &digest, 2 * HOUR);
    let store = reopen(root.path(), store);
    assert_eq!(collect(&store, &digest, Standing::Known).await, Unlinked::Known);
    assert_eq!(
        collect(&store, &digest, Standing::Unknown).await,
        Unlinked::Removed { bytes: 1000 }
    );
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Absent);
    assert!(files(root.path()).is_empty());
    // Its space can be had again, and the same content too.
    publish(&store, &content(1000)).await;
    assert_eq!(read(&store, &digest).await.unwrap(), content(1000));
}

#[tokio::test]
async fn a_blob_that_was_never_here_is_absent() {
    let root = tempfile::tempdir().unwrap();
    let digest = sha256(b"never");
    let store = open_store(root.path());
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Absent);
}

/// Trap 1 of the design: the state is asked while the digest is locked. Without the lock, the push below
/// would publish and be acknowledged between the question and the removal.
// On a blocking thread, where the look at the state is made.
#[allow(clippy::disallowed_methods)]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_state_is_asked_again_under_the_lock_of_the_digest() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    age(root.path(), &digest, 2 * HOUR);
    let store = reopen(root.path(), store);
    let published = Arc::new(AtomicBool::new(false));
    let (asked, push_now) = tokio::sync::oneshot::channel();
    let (pushing, is_pushed) = (store.clone(), Arc::clone(&published));
    let push = tokio::spawn(async move {
        push_now.await.unwrap();
        publish(&pushing, &content(1000)).await;
        is_pushed.store(true, Ordering::SeqCst);
    });
    let seen = Arc::clone(&published);
    let unlinked = store.collect(&digest, HOUR, move || {
        asked.send(()).unwrap();
        // Long enough for a push that nothing holds back.
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(2));
            assert!(!seen.load(Ordering::SeqCst), "a push got past the lock");
        }
        Standing::Unknown
    });
    assert_eq!(unlinked.await.unwrap(), Unlinked::Removed { bytes: 1000 });
    push.await.unwrap();
    assert_eq!(read(&store, &digest).await.unwrap(), content(1000), "the push came after");
}

/// Trap 2: what is published and not yet committed has no record, and counts as in use all the same.
#[tokio::test]
async fn a_file_that_is_not_yet_committed_is_young() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young);
    // The holder restarts before its owner proposes: the file itself says how old it is.
    let store = reopen(root.path(), store);
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young);
    assert_eq!(store.size_of(&digest).await.unwrap(), Some(1000));
}

#[tokio::test]
async fn a_wall_clock_that_jumps_ahead_makes_no_file_old() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    age(root.path(), &digest, 24 * HOUR);
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young, "it is pinned");
}

#[tokio::test]
async fn a_file_from_the_future_does_not_stay_for_ever() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    let file = File::open(DataDir::new(root.path()).blob(&digest)).unwrap();
    file.set_modified(SystemTime::now() + 1000 * HOUR).unwrap();
    let store = reopen(root.path(), store);
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young);
    assert!(modified(root.path(), &digest) <= SystemTime::now(), "its age begins now");
}

/// The case of trap 2 that needs no new file: the push finds the old one in place and writes nothing.
#[tokio::test]
async fn a_file_that_a_push_found_in_place_is_young() {
    let root = tempfile::tempdir().unwrap();
    let first = open_store(root.path());
    let digest = publish(&first, &content(1000)).await;
    age(root.path(), &digest, 2 * HOUR);
    let store = reopen(root.path(), first);
    // Only a file that was read and found right is left in place.
    read(&store, &digest).await.unwrap();
    let inode = || {
        let path = DataDir::new(root.path()).blob(&digest);
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
    };
    let before = inode();
    publish(&store, &content(1000)).await;
    assert_eq!(inode(), before, "this test is about a file that stays in place");
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young);
    let store = reopen(root.path(), store);
    assert_eq!(
        collect(&store, &digest, Standing::Unknown).await,
        Unlinked::Young,
        "also by its stamp"
    );
}

#[tokio::test]
async fn a_file_in_place_is_still_verified_after_its_stamp_changed() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    read(&store, &digest).await.unwrap();
    let inode = || {
        let path = DataDir::new(root.path()).blob(&digest);
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
    };
    let before = inode();
    for _ in 0..3 {
        publish(&store, &content(1000)).await;
        assert_eq!(store.renew(&digest).await.unwrap(), Some(1000));
        assert_eq!(inode(), before, "what was verified is not written again");
    }
}

#[tokio::test]
async fn an_upload_that_lay_for_long_is_young_from_its_end() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let meta = UploadMeta {
        repository: "a".parse().unwrap(),
        algorithm: Algorithm::Sha256,
        created_ms: 0,
        fence: Default::default(),
    };
    let id = UploadId::new(1);
    let mut upload = store.create_upload(&id, meta).await.unwrap();
    upload.append(Bytes::from(content(1000))).await.unwrap();
    let data = DataDir::new(root.path()).uploads().join(id.to_string()).join("data");
    File::open(&data).unwrap().set_modified(SystemTime::now() - 5 * HOUR).unwrap();
    let digest = sha256(&content(1000));
    upload.finish(&digest).await.unwrap();
    let store = reopen(root.path(), store);
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young);
}

#[tokio::test]
async fn an_owner_that_renews_before_it_commits_keeps_its_file() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(1000)).await;
    age(root.path(), &digest, 2 * HOUR);
    let store = reopen(root.path(), store);
    assert_eq!(store.renew(&digest).await.unwrap(), Some(1000));
    assert_eq!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Young);
    assert_eq!(store.renew(&sha256(b"absent")).await.unwrap(), None);
}

#[tokio::test]
async fn a_reader_of_a_file_that_goes_gets_it_whole() {
    let root = tempfile::tempdir().unwrap();
    let store = open_store(root.path());
    let digest = publish(&store, &content(2_000_000)).await;
    age(root.path(), &digest, 2 * HOUR);
    let store = reopen(root.path(), store);
    let reader = store.reader(&digest, None).await.unwrap().unwrap();
    assert!(matches!(collect(&store, &digest, Standing::Unknown).await, Unlinked::Removed { .. }));
    let (bytes, end) = drain(reader).await;
    assert!(end.is_ok());
    assert_eq!(bytes, content(2_000_000));
    assert!(store.reader(&digest, None).await.unwrap().is_none());
    // The reader found it right and may have remembered that: another file must be verified by itself.
    let path = DataDir::new(root.path()).blob(&digest);
    std::fs::write(&path, vec![0; 2_000_000]).unwrap();
    let refused = store.reader(&digest, Some(0..10)).await;
    assert!(matches!(refused, Err(StorageError::CorruptBlob { .. })), "{refused:?}");
}
