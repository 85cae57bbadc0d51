//! One whole replica in this process: real disk, real Raft, no sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tercet::auth::{Prepared, StartParts};
use tercet::config::{Config, MemberEntry, Sources};
use tercet::core::{Core, CoreParts};
use tercet::loss::Losses;
use tercet::ops::Metrics;
use tercet::scrub::{Scrub, ScrubParts};
use tercet::worker::Workers;
use tercet::{api, peer};
use tercet_raft::{
    BootstrapOptions, Consensus, FEATURE_LEVEL, InitialMember, MemberKind, RaftTiming, ReplicaNode,
    StartOptions, Transport, bootstrap,
};
use tercet_storage::{
    Algorithm, BlobStore, BlobStoreOptions, Clock, DataDir, Digest, Headroom, HeadroomOptions,
    SystemClock,
};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

pub(crate) const ADDRESS: &str = "http://127.0.0.1:9";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(crate) struct Replica {
    pub(crate) router: Router,
    pub(crate) dir: TempDir,
    pub(crate) consensus: Consensus,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn refused(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

pub(crate) async fn replica() -> Replica {
    replica_with(Config::default()).await
}

pub(crate) async fn replica_with(mut config: Config) -> Replica {
    let dir = TempDir::new().unwrap();
    config.node.name = "one".to_owned();
    config.cluster.members =
        vec![MemberEntry { name: "one".to_owned(), address: ADDRESS.to_owned() }];
    let metrics = Arc::new(Metrics::new().unwrap());
    let peers = peer::Client::new(peer::ClientOptions {
        tls: None,
        stall: Duration::from_secs(1),
        metrics: Arc::clone(&metrics),
    })
    .unwrap();
    let transport: Arc<dyn Transport> = Arc::new(peer::PeerTransport::new(peers.clone()));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let data = DataDir::new(dir.path());
    let blobs = BlobStore::open(BlobStoreOptions {
        root: dir.path().to_owned(),
        refuse_percent: 100,
        headroom_bytes: 0,
    })
    .unwrap();
    let members = || vec![InitialMember { name: "one".to_owned(), address: ADDRESS.to_owned() }];
    let (progress, _told) = watch::channel(String::new());
    let (_invite, invited) = watch::channel(None);
    let identity = bootstrap(BootstrapOptions {
        data: &data,
        own_name: "one",
        kind: MemberKind::Voter,
        initial_members: &members(),
        transport: &transport,
        clock: &clock,
        progress: &progress,
        invited: &invited,
    })
    .await
    .unwrap();
    peers.set_identity(&identity.cluster_id, identity.node_id);
    let (committed_blobs, _committed) = mpsc::channel(16);
    let headroom = Headroom::open(&data, HeadroomOptions::default()).unwrap();
    let consensus = Consensus::start(StartOptions {
        data,
        identity,
        node: ReplicaNode {
            name: "one".to_owned(),
            address: ADDRESS.to_owned(),
            kind: MemberKind::Voter,
            zone: None,
        },
        feature_level: FEATURE_LEVEL,
        initial_members: members(),
        timing: RaftTiming::default(),
        transport,
        clock,
        headroom,
        committed_blobs,
    })
    .await
    .unwrap();
    let workers = Workers::new();
    let fetcher = peer::Fetcher::new(peer::FetcherParts {
        blobs: blobs.clone(),
        peers: peers.clone(),
        directory: peer::Directory::of(&consensus),
        workers: workers.clone(),
        metrics: Arc::clone(&metrics),
        disk_stop_percent: 100,
        edge_cache: None,
    });
    let access = Prepared::load(&config, Sources::default()).await.unwrap().start(StartParts {
        consensus: consensus.clone(),
        clock: Arc::new(SystemClock),
        metrics: Arc::clone(&metrics),
        workers: workers.clone(),
    });
    let rules = config.access.immutable_tags.len();
    let losses =
        Losses::new(Arc::new(consensus.clone()), Arc::new(SystemClock), Arc::clone(&metrics));
    let scrub = Scrub::new(ScrubParts {
        data: DataDir::new(dir.path()),
        blobs: blobs.clone(),
        fetcher: fetcher.clone(),
        known: Arc::new(consensus.clone()),
        losses: losses.clone(),
        metrics: Arc::clone(&metrics),
        clock: Arc::new(SystemClock),
        config: config.scrub.clone(),
    });
    let core = Core::new(CoreParts {
        config: Arc::new(config),
        blobs: blobs.clone(),
        consensus: consensus.clone(),
        peers,
        held_sessions: peer::HeldSessions::new(blobs),
        fetcher,
        losses,
        scrub: scrub.handle(),
        access,
        metrics,
        workers,
    });
    consensus.write_barrier().await.unwrap();
    wait_settled(&consensus, rules).await;
    Replica { router: api::router(core), dir, consensus }
}

/// Waits until the leader has written its settings: from there on, the log grows by requests only.
async fn wait_settled(consensus: &Consensus, rules: usize) {
    let settled = async {
        loop {
            let (keys, found) = consensus
                .read(|meta| {
                    (meta.token_keys().unwrap().len(), meta.immutable_tags().unwrap().len())
                })
                .unwrap();
            if keys > 0 && found == rules {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("no settings");
}

impl Replica {
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "registry");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 26).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn begin(&self, name: &str) -> String {
        let opened =
            self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], Body::empty()).await;
        assert_eq!(opened.status, StatusCode::ACCEPTED);
        opened.header("location").to_owned()
    }

    pub(crate) async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let pushed = self.send("POST", &path, &[], Body::from(bytes.to_vec())).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&pushed.body));
        digest
    }

    pub(crate) async fn push_manifest(
        &self,
        name: &str,
        reference: &str,
        manifest: &Value,
    ) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        let body = Body::from(manifest.to_string());
        self.send("PUT", &path, &[("content-type", OCI_MANIFEST)], body).await
    }

    /// Files below `uploads` and `blobs`.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in ["uploads", "blobs", "quarantine"] {
            walk(&self.dir.path().join(directory), &mut found);
        }
        found
    }
}

pub(crate) fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

pub(crate) fn image(config: &Digest, layer: &Digest, size: usize) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size }],
    })
}
