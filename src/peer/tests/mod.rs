//! Replicas in one process, with real sockets and real disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod failover;
mod fetching;
mod forwarding;
mod gate;
mod repairing;
mod sessions;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use bytes::Bytes;
use futures_util::StreamExt;
use tempfile::TempDir;
use tercet_raft::Hello;
use tercet_storage::{Algorithm, BlobStore, BlobStoreOptions, Digest};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::fetch::{BlobStream, Fetcher, FetcherParts};
use super::server::{PeerState, router};
use super::{Client, ClientOptions, Directory, Peer};
use crate::ops::Metrics;
use crate::worker::Workers;

const CLUSTER: &str = "00112233445566778899aabbccddeeff";
/// Short, so that tests of stalls are.
const STALL: Duration = Duration::from_millis(600);
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A peer listener over a store of its own.
struct Replica {
    peer: Peer,
    blobs: BlobStore,
    state: PeerState,
    server: JoinHandle<()>,
    dir: TempDir,
}

impl Replica {
    async fn start(name: &str, node_id: u64) -> Self {
        let (dir, blobs) = store();
        let hello = Hello {
            name: name.to_owned(),
            cluster_id: Some(CLUSTER.to_owned()),
            node_id: Some(node_id),
            feature_level: 2,
        };
        let state = PeerState::new(hello, blobs.clone(), 64);
        let (address, server) = serve(router(state.clone())).await;
        Self { peer: peer(name, node_id, address), blobs, state, server, dir }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn peer(name: &str, node_id: u64, address: SocketAddr) -> Peer {
    Peer::at(name, node_id, format!("http://{address}"))
}

fn store() -> (TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let options =
        BlobStoreOptions { root: dir.path().to_owned(), refuse_percent: 100, headroom_bytes: 0 };
    let blobs = BlobStore::open(options).unwrap();
    (dir, blobs)
}

/// Without the deadlines of `server::accept`: what is tested here has its own.
#[allow(clippy::disallowed_methods)]
async fn serve(router: Router) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, server)
}

/// An address that refuses connections.
async fn nobody(name: &str, node_id: u64) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    peer(name, node_id, listener.local_addr().unwrap())
}

fn client(node_id: u64) -> Client {
    client_counting(node_id, Arc::new(Metrics::new().unwrap()))
}

fn client_counting(node_id: u64, metrics: Arc<Metrics>) -> Client {
    let client = Client::new(ClientOptions { tls: None, stall: STALL, metrics }).unwrap();
    client.set_identity(CLUSTER, node_id);
    client
}

fn fetcher(blobs: BlobStore, peers: Vec<Peer>) -> Fetcher {
    let metrics = Arc::new(Metrics::new().unwrap());
    Fetcher::new(FetcherParts {
        blobs,
        peers: client_counting(1, Arc::clone(&metrics)),
        directory: Directory::new(1, move || peers.clone()),
        workers: Workers::new(),
        metrics,
        disk_stop_percent: 101,
        edge_cache: None,
    })
}

fn content(length: usize) -> Bytes {
    // A period that no chunk size divides, so that swapped chunks would show.
    (0..length).map(|i| (i % 251) as u8 ^ (i / 65_521) as u8).collect()
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

async fn put(blobs: &BlobStore, content: &Bytes) -> Digest {
    let digest = digest(content);
    let mut writer = blobs.writer(digest.clone(), Some(content.len() as u64)).await.unwrap();
    writer.append(content.clone()).await.unwrap();
    writer.finish().await.unwrap();
    digest
}

async fn collect(mut stream: BlobStream) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// Waits for a condition, not for a time.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_held(blobs: &BlobStore, digest: &Digest, size: usize) {
    until("the blob on the disk", async || {
        blobs.size_of(digest).await.unwrap() == Some(size as u64)
    })
    .await;
}
