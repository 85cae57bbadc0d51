//! Streams between replicas need memory for the bytes in flight, not for the blobs.
//!
//! Both ends run in this one process, so each replica has to do with less than what is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tempfile::TempDir;
use tercet::ops::Metrics;
use tercet::peer::{
    Claim, Client, ClientOptions, Directory, Fetcher, FetcherParts, Peer, PeerState,
    SessionReplicas, SessionReplicasOptions, server,
};
use tercet::worker::Workers;
use tercet_raft::{FEATURE_LEVEL, Hello};
use tercet_storage::{Algorithm, BlobStore, BlobStoreOptions, Digest, DigestHasher, UploadId};
use tokio::net::TcpListener;

const CLUSTER: &str = "00112233445566778899aabbccddeeff";
const STREAMS: usize = 64;
const MIB: u64 = 1024 * 1024;
/// More than all the memory allowed, times the streams.
const PULLED: u64 = 48 * MIB;
const PUSHED: u64 = 8 * MIB;
const CHUNK: usize = 256 * 1024;
/// What one replica may have resident in all.
const RESIDENT_MAX_MIB: u64 = 150;

fn store() -> (TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let options =
        BlobStoreOptions { root: dir.path().to_owned(), refuse_percent: 100, headroom_bytes: 0 };
    let blobs = BlobStore::open(options).unwrap();
    (dir, blobs)
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn client() -> Client {
    let stall = Duration::from_secs(10);
    let client = Client::new(ClientOptions { tls: None, stall, metrics: metrics() }).unwrap();
    client.set_identity(CLUSTER, 1);
    client
}

/// A peer listener, without the deadlines of the process's own accept loop.
#[allow(clippy::disallowed_methods)]
async fn replica(name: &str, node_id: u64) -> (Peer, BlobStore, TempDir) {
    let (dir, blobs) = store();
    let hello = Hello {
        name: name.to_owned(),
        cluster_id: Some(CLUSTER.to_owned()),
        node_id: Some(node_id),
        feature_level: FEATURE_LEVEL,
    };
    let router = server::router(PeerState::new(hello, blobs.clone(), 4 * STREAMS));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (Peer::at(name, node_id, address), blobs, dir)
}

/// Chunks that add up to `size`, different for each `seed`.
fn chunks(seed: usize, size: u64) -> impl Iterator<Item = Bytes> {
    let count = size as usize / CHUNK;
    (0..count).map(move |i| Bytes::from(vec![(i ^ seed) as u8; CHUNK]))
}

fn digest(seed: usize, size: u64) -> Digest {
    let mut hasher = DigestHasher::new(Algorithm::Sha256);
    chunks(seed, size).for_each(|chunk| hasher.update(&chunk));
    hasher.finish()
}

/// The most that this process ever had resident.
fn resident_peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once_stay_small() {
    let (a, blobs, _a) = replica("a", 2).await;
    let (b, _, _b) = replica("b", 3).await;

    // Pulls of one blob through a replica that lacks it, some by clients that are slow.
    let pulled = digest(0, PULLED);
    let mut writer = blobs.writer(pulled.clone(), Some(PULLED)).await.unwrap();
    for chunk in chunks(0, PULLED) {
        writer.append(chunk).await.unwrap();
    }
    writer.finish().await.unwrap();
    let (_here, here) = store();
    let source = a.clone();
    let fetcher = Fetcher::new(FetcherParts {
        blobs: here,
        peers: client(),
        directory: Directory::new(1, move || vec![source.clone()]),
        workers: Workers::new(),
        metrics: metrics(),
        disk_stop_percent: 101,
        edge_cache: None,
    });
    join_all((0..STREAMS).map(|i| {
        let (fetcher, pulled) = (&fetcher, &pulled);
        async move {
            let mut stream = fetcher.open(pulled, PULLED, None).await.unwrap();
            let mut received = 0;
            while let Some(chunk) = stream.next().await {
                received += chunk.unwrap().len() as u64;
                if i % 8 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            assert_eq!(received, PULLED);
        }
    }))
    .await;
    let after_pulls = resident_peak_mib();
    assert!(after_pulls < RESIDENT_MAX_MIB, "{after_pulls} MiB after {STREAMS} pulls");

    // Pushes of different blobs to two holders each.
    let (peers, workers) = (client(), Workers::new());
    join_all((0..STREAMS).map(|i| {
        let options = SessionReplicasOptions {
            peers: peers.clone(),
            workers: workers.clone(),
            metrics: metrics(),
            claim: Claim::first(UploadId::new(1)),
            repository: "library/test".parse().unwrap(),
            algorithm: Algorithm::Sha256,
            offset: 0,
            holders: vec![a.clone(), b.clone()],
        };
        async move {
            let mut replicas = SessionReplicas::open(options).await;
            for chunk in chunks(i + 1, PUSHED) {
                replicas.send(chunk).await;
            }
            replicas.end_patch().await;
            // At least the quorum; on a busy machine the other may have been dropped.
            assert!(!replicas.finish(&digest(i + 1, PUSHED), PUSHED, 1).await.is_empty());
        }
    }))
    .await;
    let after_pushes = resident_peak_mib();
    println!("peak: {after_pulls} MiB after pulls, {after_pushes} MiB after pushes");
    // An owner and two holders share this process.
    assert!(after_pushes < 2 * RESIDENT_MAX_MIB, "{after_pushes} MiB after {STREAMS} pushes");
}
