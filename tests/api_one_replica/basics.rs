//! Push, pull, list and delete, and what is refused.

use std::path::PathBuf;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tercet::config::Config;
use tercet_storage::{Algorithm, Digest};

use crate::support::{OCI_MANIFEST, image, replica, replica_with};

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
    // What cannot be judged is refused, not ignored.
    let body = || Body::from(old.to_string());
    let kind = ("content-type", OCI_MANIFEST);
    let (any, etag) = (("if-match", "*"), ("if-match", created.header("etag")));
    let several =
        replica.send("PUT", "/v2/a/manifests/v1?tag=v2", &[kind, any], body()).await.refused();
    assert_eq!(several, (400, "UNSUPPORTED".to_owned()));
    let two = replica.send("PUT", "/v2/a/manifests/v1", &[kind, etag, any], body()).await;
    assert_eq!(two.refused(), (400, "UNSUPPORTED".to_owned()));
    assert_eq!(replica.get("/v2/a/manifests/v2").await.status, StatusCode::NOT_FOUND);
    let deleted = replica.send("DELETE", "/v2/a/manifests/v1", &[etag], Body::empty()).await;
    assert_eq!(deleted.refused(), (400, "UNSUPPORTED".to_owned()));
    assert_eq!(replica.get("/v2/a/manifests/v1").await.status, StatusCode::OK);
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
