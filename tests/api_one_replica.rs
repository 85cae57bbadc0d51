//! The distribution API against one whole replica in this process: real disk, real Raft, no sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tercet::config::{Config, MemberEntry};
use tercet::core::{Core, CoreParts};
use tercet::ops::Metrics;
use tercet::worker::Workers;
use tercet::{api, peer};
use tercet_raft::{
    Consensus, InitialMember, RaftTiming, ReplicaNode, StartOptions, Transport, bootstrap,
};
use tercet_storage::{Algorithm, BlobStore, BlobStoreOptions, Clock, DataDir, Digest, SystemClock};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

const ADDRESS: &str = "http://127.0.0.1:9";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

struct Replica {
    router: Router,
    dir: TempDir,
    consensus: Consensus,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn refused(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

async fn replica() -> Replica {
    replica_with(Config::default()).await
}

async fn replica_with(mut config: Config) -> Replica {
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
    let identity =
        bootstrap(&data, "one", &members(), &transport, &clock, &progress).await.unwrap();
    peers.set_identity(&identity.cluster_id, identity.node_id);
    let (committed_blobs, _committed) = mpsc::channel(16);
    let consensus = Consensus::start(StartOptions {
        data,
        identity,
        node: ReplicaNode { name: "one".to_owned(), address: ADDRESS.to_owned() },
        initial_members: members(),
        timing: RaftTiming::default(),
        transport,
        clock,
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
    });
    let core = Core::new(CoreParts {
        config: Arc::new(config),
        blobs: blobs.clone(),
        consensus: consensus.clone(),
        peers,
        held_sessions: peer::HeldSessions::new(blobs),
        fetcher,
        metrics,
        workers,
    });
    consensus.write_barrier().await.unwrap();
    Replica { router: api::router(core), dir, consensus }
}

impl Replica {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request =
            Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 26).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    async fn begin(&self, name: &str) -> String {
        let opened =
            self.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], Body::empty()).await;
        assert_eq!(opened.status, StatusCode::ACCEPTED);
        opened.header("location").to_owned()
    }

    async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let pushed = self.send("POST", &path, &[], Body::from(bytes.to_vec())).await;
        assert_eq!(pushed.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&pushed.body));
        digest
    }

    async fn push_manifest(&self, name: &str, reference: &str, manifest: &Value) -> Answer {
        let path = format!("/v2/{name}/manifests/{reference}");
        let body = Body::from(manifest.to_string());
        self.send("PUT", &path, &[("content-type", OCI_MANIFEST)], body).await
    }

    /// Files below `uploads` and `blobs`.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for directory in ["uploads", "blobs", "quarantine"] {
            walk(&self.dir.path().join(directory), &mut found);
        }
        found
    }
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

fn image(config: &Digest, layer: &Digest, size: usize) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_push_is_pulled_back_by_tag_and_range() {
    let replica = replica().await;
    assert_eq!(replica.get("/v2/").await.status, StatusCode::OK);

    let session = replica.begin("a/b").await;
    let none = replica.get(&session).await;
    assert_eq!((none.status, none.header("range")), (StatusCode::NO_CONTENT, "0-0"));
    let first =
        replica.send("PATCH", &session, &[("content-range", "0-4")], Body::from("hello")).await;
    assert_eq!((first.status, first.header("range")), (StatusCode::ACCEPTED, "0-4"));

    // Out of order, overlapping, and repeated: 416 with where it stands.
    for range in ["6-9", "3-6", "0-3"] {
        let wrong =
            replica.send("PATCH", &session, &[("content-range", range)], Body::from("1234")).await;
        assert_eq!(wrong.status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(wrong.header("range"), "0-4");
        assert_eq!(wrong.header("location"), session);
    }
    let lie = replica.send("PATCH", &session, &[("content-range", "5-9")], Body::from("12")).await;
    assert_eq!(lie.refused(), (400, "SIZE_INVALID".to_owned()));

    let layer = Digest::of(Algorithm::Sha256, b"hello12 world");
    let closing = format!("{session}?digest={layer}");
    for _ in 0..2 {
        // The second one is a client that lost the first answer.
        let closed = replica.send("PUT", &closing, &[], Body::from(" world")).await;
        assert_eq!(closed.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&closed.body));
        assert_eq!(closed.header("location"), format!("/v2/a/b/blobs/{layer}"));
        assert_eq!(closed.header("docker-content-digest"), layer.to_string());
    }
    assert_eq!(replica.get(&session).await.status, StatusCode::NOT_FOUND);

    let blob = format!("/v2/a/b/blobs/{layer}");
    assert_eq!(replica.get(&blob).await.body, b"hello12 world");
    let part = replica.send("GET", &blob, &[("range", "bytes=8-")], Body::empty()).await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (StatusCode::PARTIAL_CONTENT, b"world".as_slice())
    );
    assert_eq!(part.header("content-range"), "bytes 8-12/13");
    let beyond = replica.send("GET", &blob, &[("range", "bytes=13-")], Body::empty()).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), "bytes */13");
    let head = replica.send("HEAD", &blob, &[], Body::empty()).await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (StatusCode::OK, "13", 0)
    );
    let etag = head.header("etag").to_owned();
    let same = replica.send("GET", &blob, &[("if-none-match", &etag)], Body::empty()).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);

    let config = replica.push_blob("a/b", b"{}").await;
    let manifest = image(&config, &layer, 13);
    let pushed = replica.push_manifest("a/b", "v1", &manifest).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&pushed.body));
    let digest = Digest::of(Algorithm::Sha256, manifest.to_string().as_bytes());
    for reference in ["v1".to_owned(), digest.to_string()] {
        let pulled = replica.get(&format!("/v2/a/b/manifests/{reference}")).await;
        assert_eq!(pulled.body, manifest.to_string().as_bytes());
        assert_eq!(pulled.header("content-type"), OCI_MANIFEST);
        assert_eq!(pulled.header("docker-content-digest"), digest.to_string());
        assert_eq!(pulled.header("docker-distribution-api-version"), "registry/2.0");
    }

    let named = replica.send("DELETE", &blob, &[], Body::empty()).await;
    assert_eq!(named.refused(), (405, "DENIED".to_owned()));
    let gone =
        replica.send("DELETE", &format!("/v2/a/b/manifests/{digest}"), &[], Body::empty()).await;
    assert_eq!(gone.status, StatusCode::ACCEPTED);
    assert_eq!(
        replica.get("/v2/a/b/manifests/v1").await.refused(),
        (404, "MANIFEST_UNKNOWN".into())
    );
    assert_eq!(
        replica.send("DELETE", &blob, &[], Body::empty()).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(replica.get(&blob).await.refused(), (404, "BLOB_UNKNOWN".to_owned()));
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_leave_nothing_behind() {
    let replica = replica().await;
    let wrong = Digest::of(Algorithm::Sha256, b"something else");

    let session = replica.begin("a").await;
    let closed =
        replica.send("PUT", &format!("{session}?digest={wrong}"), &[], Body::from("x")).await;
    assert_eq!(closed.refused(), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(replica.get(&session).await.refused(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));

    let whole = format!("/v2/a/blobs/uploads/?digest={wrong}");
    let refused = replica.send("POST", &whole, &[], Body::from("x")).await;
    assert_eq!(refused.refused(), (400, "DIGEST_INVALID".to_owned()));

    let session = replica.begin("a").await;
    let cancelled = replica.send("DELETE", &session, &[], Body::empty()).await;
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
    assert_eq!(replica.get(&session).await.status, StatusCode::NOT_FOUND);

    // The session of one repository is unknown in another.
    let session = replica.begin("a").await;
    let elsewhere = session.replace("/v2/a/", "/v2/b/");
    assert_eq!(replica.get(&elsewhere).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        replica.send("DELETE", &session, &[], Body::empty()).await.status,
        StatusCode::NO_CONTENT
    );

    assert_eq!(replica.files(), Vec::<PathBuf>::new());
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_body_keeps_a_resumable_session() {
    let replica = replica().await;
    let session = replica.begin("a").await;
    let cut = futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"first ")),
        Err(std::io::Error::other("the client went away")),
    ]);
    let broken = replica.send("PATCH", &session, &[], Body::from_stream(cut)).await;
    assert_eq!(broken.refused(), (400, "BLOB_UPLOAD_INVALID".to_owned()));
    let left = replica.get(&session).await;
    assert_eq!((left.status, left.header("range")), (StatusCode::NO_CONTENT, "0-5"));

    let digest = Digest::of(Algorithm::Sha512, b"first second");
    let path = format!("{session}?digest={digest}");
    let headers = [("content-range", "6-11")];
    let closed = replica.send("PUT", &path, &headers, Body::from("second")).await;
    assert_eq!(closed.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&closed.body));
    assert_eq!(replica.get(&format!("/v2/a/blobs/{digest}")).await.body, b"first second");
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_does_not_lock_out_status_and_cancel() {
    let replica = replica().await;
    let session = replica.begin("a").await;
    let slow =
        futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"12345"))]);
    let slow =
        Body::from_stream(futures_util::StreamExt::chain(slow, futures_util::stream::pending()));
    let patch = replica.send("PATCH", &session, &[], slow);
    let others = async {
        loop {
            let state = replica.get(&session).await;
            assert_eq!(state.status, StatusCode::NO_CONTENT);
            if state.header("range") == "0-4" {
                break;
            }
            tokio::task::yield_now().await;
        }
        replica.send("DELETE", &session, &[], Body::empty()).await
    };
    let (patched, cancelled) = tokio::join!(patch, others);
    assert_eq!(cancelled.status, StatusCode::NO_CONTENT);
    assert_eq!(patched.refused(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    assert_eq!(replica.files(), Vec::<PathBuf>::new());
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_judged() {
    let mut config = Config::default();
    config.limits.manifest_bytes = 64 * 1024;
    let replica = replica_with(config).await;
    let empty = replica.push_blob("a", b"{}").await;
    let missing = Digest::of(Algorithm::Sha256, b"never pushed");

    let refused = replica.push_manifest("a", "v1", &image(&empty, &missing, 12)).await;
    assert_eq!(refused.refused(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(refused.json()["errors"][0]["detail"]["digest"], missing.to_string());
    // A blob of another repository is not a blob of this one.
    let refused = replica.push_manifest("b", "v1", &image(&empty, &empty, 2)).await;
    assert_eq!(refused.refused(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));

    let path = "/v2/a/manifests/v1";
    let large = Body::from(vec![b' '; 64 * 1024 + 1]);
    let refused = replica.send("PUT", path, &[("content-type", OCI_MANIFEST)], large).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    let refused =
        replica.send("PUT", path, &[("content-type", OCI_MANIFEST)], Body::from("{")).await;
    assert_eq!(refused.refused(), (400, "MANIFEST_INVALID".to_owned()));
    let gzip = [("content-type", OCI_MANIFEST), ("content-encoding", "gzip")];
    let refused = replica.send("PUT", path, &gzip, Body::from("{}")).await;
    assert_eq!(refused.refused(), (415, "UNSUPPORTED".to_owned()));

    let manifest = image(&empty, &empty, 2);
    let digest = Digest::of(Algorithm::Sha512, manifest.to_string().as_bytes());
    let tags = format!("{digest}?tag=one&tag=two");
    let pushed = replica.push_manifest("a", &tags, &manifest).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&pushed.body));
    let accepted: Vec<_> = pushed.headers.get_all("oci-tag").iter().collect();
    assert_eq!(accepted, ["one", "two"]);
    assert_eq!(
        replica.get("/v2/a/manifests/two").await.header("docker-content-digest"),
        digest.to_string()
    );
    let other = replica.push_manifest("a", &missing.to_string(), &manifest).await;
    assert_eq!(other.refused(), (400, "DIGEST_INVALID".to_owned()));
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_is_compared_and_swapped() {
    let replica = replica().await;
    let empty = replica.push_blob("a", b"{}").await;
    let layer = replica.push_blob("a", b"layer").await;
    let (old, new) = (image(&empty, &empty, 2), image(&empty, &layer, 5));
    let put = |manifest: &Value, name: &'static str, value: String| {
        let body = Body::from(manifest.to_string());
        let replica = &replica;
        async move {
            let headers = [("content-type", OCI_MANIFEST), (name, value.as_str())];
            replica.send("PUT", "/v2/a/manifests/v1", &headers, body).await
        }
    };
    assert_eq!(put(&old, "if-match", "*".into()).await.status, StatusCode::PRECONDITION_FAILED);
    let created = put(&old, "if-none-match", "*".into()).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let again = put(&new, "if-none-match", "*".into()).await;
    assert_eq!(again.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(again.header("etag"), created.header("etag"));
    let wrong = put(&new, "if-match", format!("\"{layer}\"")).await;
    assert_eq!(wrong.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        put(&new, "if-match", created.header("etag").into()).await.status,
        StatusCode::CREATED
    );
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_have_pages_and_referrers_have_filters() {
    let replica = replica().await;
    let empty = replica.push_blob("a", b"{}").await;
    for tag in ["b", "a", "c"] {
        let pushed = replica.push_manifest("a", tag, &image(&empty, &empty, 2)).await;
        assert_eq!(pushed.status, StatusCode::CREATED);
    }
    let page = replica.get("/v2/a/tags/list?n=2").await;
    assert_eq!(page.json(), json!({ "name": "a", "tags": ["a", "b"] }));
    assert_eq!(page.header("link"), "</v2/a/tags/list?n=2&last=b>; rel=\"next\"");
    let page = replica.get("/v2/a/tags/list?n=2&last=b").await;
    assert_eq!(page.json()["tags"], json!(["c"]));
    assert!(!page.headers.contains_key("link"));
    let none = replica.get("/v2/a/tags/list?n=0").await;
    assert_eq!(none.json()["tags"], json!([]));
    assert!(!none.headers.contains_key("link"));
    assert_eq!(replica.get("/v2/a/tags/list?n=-1").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(replica.get("/v2/b/tags/list").await.refused(), (404, "NAME_UNKNOWN".to_owned()));

    // Mounted, and then visible in both; a blob that is not there is to be uploaded.
    let mount = format!("/v2/b/blobs/uploads/?mount={empty}&from=a");
    assert_eq!(replica.send("POST", &mount, &[], Body::empty()).await.status, StatusCode::CREATED);
    let mount = format!("/v2/b/blobs/uploads/?mount={empty}&from=nowhere");
    assert_eq!(replica.send("POST", &mount, &[], Body::empty()).await.status, StatusCode::ACCEPTED);
    assert_eq!(replica.get("/v2/_catalog").await.json(), json!({ "repositories": ["a", "b"] }));
    assert_eq!(
        replica.get("/v2/_catalog?n=1").await.header("link"),
        "</v2/_catalog?n=1&last=a>; rel=\"next\""
    );

    let subject = Digest::of(Algorithm::Sha256, b"a subject that is not here");
    let mut artifact = image(&empty, &empty, 2);
    artifact["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 });
    artifact["artifactType"] = json!("application/vnd.example.sbom+json");
    artifact["annotations"] = json!({ "k": "v" });
    let pushed = replica.push_manifest("a", "sbom", &artifact).await;
    assert_eq!(pushed.header("oci-subject"), subject.to_string());
    let path = format!("/v2/a/referrers/{subject}");
    let all = replica.get(&path).await;
    assert_eq!(all.header("content-type"), "application/vnd.oci.image.index.v1+json");
    let listed = &all.json()["manifests"][0];
    assert_eq!(listed["artifactType"], "application/vnd.example.sbom+json");
    assert_eq!(listed["annotations"], json!({ "k": "v" }));
    let some =
        replica.get(&format!("{path}?artifactType=application/vnd.example.sbom%2Bjson")).await;
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    assert_eq!(some.json()["manifests"].as_array().unwrap().len(), 1);
    let other = replica.get(&format!("{path}?artifactType=other")).await;
    assert_eq!(other.json()["manifests"], json!([]));
    assert_eq!(replica.get(&format!("/v2/none/referrers/{subject}")).await.status, StatusCode::OK);
    assert_eq!(replica.get("/v2/a/referrers/sha256:x").await.status, StatusCode::BAD_REQUEST);
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_an_oci_body() {
    let replica = replica().await;
    assert_eq!(replica.get("/").await.refused().0, 404);
    assert_eq!(replica.get("/v2/a/b").await.refused().0, 404);
    let not_allowed = replica.send("POST", "/v2/a/tags/list", &[], Body::empty()).await;
    assert_eq!(not_allowed.refused(), (405, "UNSUPPORTED".to_owned()));
    assert_eq!(not_allowed.header("allow"), "GET, HEAD");
    // Only replicas may ask this, through the peer listener.
    let id = format!("{:016x}-{:032x}", 1, 1);
    assert_eq!(replica.get(&format!("/_tercet/uploads/{id}")).await.status, StatusCode::NOT_FOUND);
    let unknown = replica.get(&format!("/v2/a/blobs/uploads/{id}")).await;
    assert_eq!(unknown.refused(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    replica.consensus.shutdown().await;
}
