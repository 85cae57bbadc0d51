//! What Docker clients and mirrors expect beside the specification.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;

use crate::support::{Replica, replica};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

async fn put(replica: &Replica, tag: &str, kind: &str, body: String) -> crate::support::Answer {
    let path = format!("/v2/a/manifests/{tag}");
    replica.send("PUT", &path, &[("content-type", kind)], Body::from(body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_2_goes_there_and_back() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let image = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": config, "size": 2 }],
    })
    .to_string();
    let pushed = put(&replica, "image", MANIFEST, image.clone()).await;
    assert_eq!(pushed.status, StatusCode::CREATED);
    let list = json!({
        "schemaVersion": 2, "mediaType": LIST,
        "manifests": [{ "mediaType": MANIFEST, "digest": pushed.header("docker-content-digest"),
            "size": image.len(), "platform": { "architecture": "amd64", "os": "linux" } }],
    })
    .to_string();
    assert_eq!(put(&replica, "list", LIST, list.clone()).await.status, StatusCode::CREATED);
    for (tag, kind, body) in [("image", MANIFEST, &image), ("list", LIST, &list)] {
        let path = format!("/v2/a/manifests/{tag}");
        // Whatever a client accepts, it gets what was pushed.
        for accept in [kind, "application/vnd.oci.image.index.v1+json", "*/*"] {
            let pulled = replica.send("GET", &path, &[("accept", accept)], Body::empty()).await;
            assert_eq!(pulled.body, body.as_bytes());
            assert_eq!(pulled.header("content-type"), kind);
            assert_eq!(pulled.header("docker-distribution-api-version"), "registry/2.0");
        }
    }
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_1_is_refused_with_words() {
    let replica = replica().await;
    let body = json!({ "schemaVersion": 1, "name": "a", "tag": "v1", "fsLayers": [] }).to_string();
    for kind in [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        "",
    ] {
        let refused = put(&replica, "v1", kind, body.clone()).await;
        assert_eq!(refused.refused(), (400, "MANIFEST_INVALID".to_owned()), "{kind}");
        let message = refused.json()["errors"][0]["message"].to_string();
        assert!(message.contains("schema 1 is not supported"), "{kind}: {message}");
        assert!(message.contains("push the image again"), "{kind}: {message}");
    }
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_has_pages_and_every_answer_the_version() {
    let replica = replica().await;
    for repository in ["c", "a/b", "a"] {
        replica.push_blob(repository, b"{}").await;
    }
    let mut path = "/v2/_catalog?n=1".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = replica.get(&path).await;
        seen.push(page.json()["repositories"][0].as_str().unwrap().to_owned());
        match page.headers.get("link") {
            None => break,
            Some(link) => {
                let link = link.to_str().unwrap();
                path = link.split(['<', '>']).nth(1).unwrap().to_owned();
                assert!(link.ends_with("; rel=\"next\""));
            }
        }
    }
    assert_eq!(seen, ["a", "a/b", "c"]);
    for path in ["/v2/", "/v2/_catalog", "/v2/a/tags/list"] {
        for method in ["GET", "HEAD"] {
            let answer = replica.send(method, path, &[], Body::empty()).await;
            assert_eq!(answer.status, StatusCode::OK, "{method} {path}");
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
            assert_eq!(method == "HEAD", answer.body.is_empty());
        }
    }
    for path in ["/v2/none/tags/list", "/nowhere", "/v2/UPPER/tags/list"] {
        let answer = replica.get(path).await;
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0", "{path}");
    }
    replica.consensus.shutdown().await;
}

/// containerd names the registry that it means to every mirror that it asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_answered_from_what_is_here() {
    let replica = replica().await;
    let blob = replica.push_blob("library/alpine", b"{}").await;
    let path = format!("/v2/library/alpine/blobs/{blob}");
    for host in ["docker.io", "localhost:5000", "[::1]:5000"] {
        for method in ["GET", "HEAD"] {
            let found =
                replica.send(method, &format!("{path}?ns={host}"), &[], Body::empty()).await;
            assert_eq!((found.status, found.header("oci-namespace")), (StatusCode::OK, host));
        }
        let unknown = replica.get(&format!("/v2/library/alpine/manifests/none?ns={host}")).await;
        assert_eq!(unknown.refused(), (404, "MANIFEST_UNKNOWN".to_owned()));
        assert_eq!(unknown.header("oci-namespace"), host);
    }
    let partial = [("range", "bytes=0-0")];
    let part = replica.send("GET", &format!("{path}?ns=docker.io"), &partial, Body::empty()).await;
    assert_eq!(part.header("oci-namespace"), "docker.io");
    assert!(!replica.get(&path).await.headers.contains_key("oci-namespace"));
    for junk in ["", "http://docker.io", "a/b", "a%0d%0aX-Evil:1", "user@docker.io", "a:0"] {
        let refused = replica.get(&format!("{path}?ns={junk}")).await;
        assert_eq!(refused.refused(), (400, "NAME_INVALID".to_owned()), "{junk}");
        assert!(!refused.headers.contains_key("oci-namespace"));
    }
    replica.consensus.shutdown().await;
}
