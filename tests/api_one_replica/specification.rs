//! What the specification's conformance suite demands, pinned one by one, whether that suite is there to
//! be run or not (`chaos/tests/suite/conformance.rs` runs it).

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tercet::config::{Config, SparseManifests};
use tercet_storage::{Algorithm, Digest};

use crate::support::{Answer, OCI_INDEX, OCI_MANIFEST, Replica, image, replica, replica_with};

const ARTIFACT: &str = "application/vnd.example.sbom";

fn digest_of(manifest: &Value) -> Digest {
    Digest::of(Algorithm::Sha256, manifest.to_string().as_bytes())
}

fn never_pushed(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn index(children: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children })
}

fn child(manifest: &Value) -> Value {
    descriptor(OCI_MANIFEST, &digest_of(manifest), manifest.to_string().len())
}

async fn sparse(setting: SparseManifests) -> Replica {
    let mut config = Config::default();
    config.registry.sparse_manifests = setting;
    replica_with(config).await
}

async fn put(replica: &Replica, reference: &str, kind: &str, manifest: &Value) -> Answer {
    let path = format!("/v2/a/manifests/{reference}");
    let body = Body::from(manifest.to_string());
    replica.send("PUT", &path, &[("content-type", kind)], body).await
}

async fn put_ok(replica: &Replica, reference: &str, kind: &str, manifest: &Value) -> Answer {
    let answer = put(replica, reference, kind, manifest).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&answer.body));
    answer
}

async fn delete(replica: &Replica, path: &str) -> StatusCode {
    replica.send("DELETE", path, &[], Body::empty()).await.status
}

/// Both methods: the same status and headers, a body on GET only.
async fn get_and_head(replica: &Replica, path: &str) -> Answer {
    let (get, head) =
        (replica.get(path).await, replica.send("HEAD", path, &[], Body::empty()).await);
    assert_eq!(get.status, head.status, "{path}");
    assert!(head.body.is_empty(), "{path}");
    assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    for name in ["docker-content-digest", "content-type", "etag", "docker-distribution-api-version"]
    {
        assert_eq!(get.headers.get(name), head.headers.get(name), "{path}: {name}");
    }
    get
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_index_is_taken_unless_it_is_switched_off() {
    for setting in [SparseManifests::Never, SparseManifests::Indexes, SparseManifests::Always] {
        let replica = sparse(setting).await;
        let config = replica.push_blob("a", b"{}").await;
        let image = image(&config, &config, 2);
        put_ok(&replica, &digest_of(&image).to_string(), OCI_MANIFEST, &image).await;
        let absent = never_pushed("another platform");
        let sparse = index(&[child(&image), descriptor(OCI_MANIFEST, &absent, 77)]);
        let pushed = put(&replica, "multi", OCI_INDEX, &sparse).await;
        if setting == SparseManifests::Never {
            assert_eq!(pushed.refused(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
            assert_eq!(pushed.json()["errors"][0]["detail"]["digest"], absent.to_string());
            assert_eq!(replica.get("/v2/a/manifests/multi").await.status, StatusCode::NOT_FOUND);
        } else {
            assert_eq!(pushed.status, StatusCode::CREATED);
            let warning = pushed.header("warning");
            assert!(warning.starts_with("299 - \"") && warning.contains(&absent.to_string()));
            let pulled = get_and_head(&replica, "/v2/a/manifests/multi").await;
            assert_eq!(pulled.body, sparse.to_string().as_bytes());
            let path = format!("/v2/a/manifests/{absent}");
            assert_eq!(replica.get(&path).await.refused(), (404, "MANIFEST_UNKNOWN".to_owned()));
        }
        // Nothing of it is there: a mistake under every setting.
        let nothing = index(&[descriptor(OCI_MANIFEST, &absent, 77)]);
        let refused = put(&replica, "nothing", OCI_INDEX, &nothing).await;
        assert_eq!(refused.refused(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
        replica.consensus.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_image_is_taken_only_where_it_is_switched_on() {
    for setting in [SparseManifests::Never, SparseManifests::Indexes, SparseManifests::Always] {
        let replica = sparse(setting).await;
        let config = replica.push_blob("a", b"{}").await;
        let layer = replica.push_blob("a", b"first layer").await;
        let absent = never_pushed("second layer");
        let mut image = image(&config, &layer, 11);
        let layers = image["layers"].as_array_mut().unwrap();
        layers.push(descriptor("application/vnd.oci.image.layer.v1.tar", &absent, 12));
        let pushed = put(&replica, "v1", OCI_MANIFEST, &image).await;
        if setting != SparseManifests::Always {
            assert_eq!(pushed.refused(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
            assert_eq!(pushed.json()["errors"][0]["detail"]["digest"], absent.to_string());
            replica.consensus.shutdown().await;
            continue;
        }
        assert_eq!(pushed.status, StatusCode::CREATED);
        assert!(pushed.header("warning").contains(&absent.to_string()));
        let blob = format!("/v2/a/blobs/{absent}");
        assert_eq!(replica.get(&blob).await.refused(), (404, "BLOB_UNKNOWN".to_owned()));
        // What comes later is kept as if it had come first.
        replica.push_blob("a", b"second layer").await;
        assert_eq!(delete(&replica, &blob).await, StatusCode::METHOD_NOT_ALLOWED);
        let complete = put_ok(&replica, "v2", OCI_MANIFEST, &image).await;
        assert!(!complete.headers.contains_key("warning"));
        let manifest = format!("/v2/a/manifests/{}", digest_of(&image));
        assert_eq!(delete(&replica, &manifest).await, StatusCode::ACCEPTED);
        assert_eq!(delete(&replica, &blob).await, StatusCode::ACCEPTED);
        replica.consensus.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tags_are_one_command() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let manifest = image(&config, &config, 2);
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, manifest.to_string().as_bytes());
        let names: Vec<String> = (0..12).map(|number| format!("{algorithm}-{number}")).collect();
        let query: Vec<String> = names.iter().map(|name| format!("tag={name}")).collect();
        let reference = format!("{digest}?{}", query.join("&"));
        let pushed = put_ok(&replica, &reference, OCI_MANIFEST, &manifest).await;
        // The leader stamps every command with its own time: one command, one time.
        let repository = "a".parse().unwrap();
        let tags = names.iter().map(|name| name.parse().unwrap());
        let times: Vec<u64> = replica
            .consensus
            .read(|meta| {
                tags.map(|tag| meta.tag(&repository, &tag).unwrap().unwrap().updated_ms).collect()
            })
            .unwrap();
        assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
        let told = pushed.headers.get_all("oci-tag").iter();
        let told: Vec<&str> = told.map(|tag| tag.to_str().unwrap()).collect();
        assert_eq!(told, names);
        assert_eq!(pushed.header("docker-content-digest"), digest.to_string());
        for name in &names {
            let pulled = get_and_head(&replica, &format!("/v2/a/manifests/{name}")).await;
            assert_eq!(pulled.header("docker-content-digest"), digest.to_string());
        }
    }
    // One bad tag: none is set.
    let digest = digest_of(&manifest);
    let refused =
        put(&replica, &format!("{digest}?tag=good&tag=.bad"), OCI_MANIFEST, &manifest).await;
    assert_eq!(refused.refused(), (400, "NAME_INVALID".to_owned()));
    assert_eq!(replica.get("/v2/a/manifests/good").await.status, StatusCode::NOT_FOUND);
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_every_size_and_algorithm_go_in_by_every_way() {
    let replica = replica().await;
    for algorithm in Algorithm::ALL {
        for content in [&b""[..], b"{}", &[7; 5_000]] {
            let digest = Digest::of(algorithm, content);
            let blob = format!("/v2/a/blobs/{digest}");
            let whole = format!("/v2/a/blobs/uploads/?digest={digest}");
            for way in ["post", "put", "chunks"] {
                let done = match way {
                    "post" => replica.send("POST", &whole, &[], Body::from(content.to_vec())).await,
                    _ => upload(&replica, algorithm, &digest, content, way).await,
                };
                assert_eq!(done.status, StatusCode::CREATED, "{way} {digest}");
                assert_eq!(done.header("location"), blob);
                assert_eq!(done.header("docker-content-digest"), digest.to_string());
                let pulled = get_and_head(&replica, &blob).await;
                assert_eq!(pulled.header("docker-content-digest"), digest.to_string());
                assert_eq!(pulled.body, content);
                assert_eq!(delete(&replica, &blob).await, StatusCode::ACCEPTED);
                // Gone at once, and once only.
                assert_eq!(replica.get(&blob).await.refused(), (404, "BLOB_UNKNOWN".to_owned()));
                assert_eq!(delete(&replica, &blob).await, StatusCode::NOT_FOUND);
            }
        }
    }
    replica.consensus.shutdown().await;
}

async fn upload(
    replica: &Replica,
    algorithm: Algorithm,
    digest: &Digest,
    content: &[u8],
    way: &str,
) -> Answer {
    let begin = format!("/v2/a/blobs/uploads/?digest-algorithm={algorithm}");
    let begun = replica.send("POST", &begin, &[], Body::empty()).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let session = begun.header("location").to_owned();
    let close = format!("{session}?digest={digest}");
    if way == "put" || content.is_empty() {
        return replica.send("PUT", &close, &[], Body::from(content.to_vec())).await;
    }
    let (first, last) = content.split_at(content.len() / 2);
    let range = format!("0-{}", first.len() - 1);
    let patched = [("content-range", range.as_str())];
    let patched = replica.send("PATCH", &session, &patched, Body::from(first.to_vec())).await;
    assert_eq!((patched.status, patched.header("range")), (StatusCode::ACCEPTED, range.as_str()));
    let range = format!("{}-{}", first.len(), content.len() - 1);
    let headers = [("content-range", range.as_str())];
    replica.send("PUT", &close, &headers, Body::from(last.to_vec())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_asked_about_and_cancelled() {
    let replica = replica().await;
    let session = replica.begin("a").await;
    replica.send("PATCH", &session, &[], Body::from("12345")).await;
    for method in ["GET", "HEAD"] {
        let state = replica.send(method, &session, &[], Body::empty()).await;
        assert_eq!((state.status, state.header("range")), (StatusCode::NO_CONTENT, "0-4"));
        assert_eq!(state.header("location"), session);
    }
    assert_eq!(delete(&replica, &session).await, StatusCode::NO_CONTENT);
    for method in ["GET", "PATCH", "DELETE"] {
        let gone = replica.send(method, &session, &[], Body::empty()).await;
        assert_eq!(gone.refused(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "{method}");
    }
    let unknown = "/v2/a/blobs/uploads/?digest-algorithm=md5";
    let refused = replica.send("POST", unknown, &[], Body::empty()).await;
    assert_eq!(refused.refused(), (400, "DIGEST_INVALID".to_owned()));
    assert!(replica.files().is_empty());
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_needs_no_source_but_the_blob_has_to_be_somewhere() {
    let replica = replica().await;
    let blob = replica.push_blob("somewhere/deep", b"shared").await;
    let mount = |query: String| {
        let replica = &replica;
        async move {
            let path = format!("/v2/a/blobs/uploads/?{query}");
            replica.send("POST", &path, &[], Body::empty()).await
        }
    };
    let absent = mount(format!("mount={}", never_pushed("x"))).await;
    assert_eq!(absent.status, StatusCode::ACCEPTED);
    assert_eq!(replica.get(absent.header("location")).await.status, StatusCode::NO_CONTENT);
    for _ in 0..2 {
        let mounted = mount(format!("mount={blob}")).await;
        assert_eq!(mounted.status, StatusCode::CREATED);
        assert_eq!(mounted.header("location"), format!("/v2/a/blobs/{blob}"));
        assert_eq!(mounted.header("docker-content-digest"), blob.to_string());
    }
    assert_eq!(replica.get(&format!("/v2/a/blobs/{blob}")).await.body, b"shared");
    // A source that is named is the only one.
    let wrong = mount(format!("mount={blob}&from=elsewhere")).await;
    assert_eq!(wrong.status, StatusCode::ACCEPTED);
    replica.consensus.shutdown().await;
}

/// CVE-2026-35172 in another registry: what it knew of a deleted blob came back through a cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_35172_a_deleted_blob_is_gone_though_another_repository_keeps_it() {
    let replica = replica().await;
    for repository in ["a", "b"] {
        replica.push_blob(repository, b"kept in b").await;
    }
    let digest = never_pushed("kept in b");
    let in_a = format!("/v2/a/blobs/{digest}");
    assert_eq!(get_and_head(&replica, &in_a).await.body, b"kept in b");
    assert_eq!(delete(&replica, &in_a).await, StatusCode::ACCEPTED);
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = replica.send(method, &in_a, &[], Body::empty()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method}");
    }
    let ranged = replica.send("GET", &in_a, &[("range", "bytes=0-1")], Body::empty()).await;
    assert_eq!(ranged.status, StatusCode::NOT_FOUND);
    let known = format!("\"{digest}\"");
    let cached = replica.send("GET", &in_a, &[("if-none-match", &known)], Body::empty()).await;
    assert_eq!(cached.status, StatusCode::NOT_FOUND);
    assert_eq!(replica.get(&format!("/v2/b/blobs/{digest}")).await.body, b"kept in b");

    // The same with manifests.
    let config = [replica.push_blob("a", b"{}").await, replica.push_blob("b", b"{}").await];
    let manifest = image(&config[0], &config[1], 2);
    for repository in ["a", "b"] {
        let pushed = replica.push_manifest(repository, "v1", &manifest).await;
        assert_eq!(pushed.status, StatusCode::CREATED);
    }
    let digest = digest_of(&manifest);
    assert_eq!(delete(&replica, &format!("/v2/a/manifests/{digest}")).await, StatusCode::ACCEPTED);
    for reference in ["v1".to_owned(), digest.to_string()] {
        let gone = replica.get(&format!("/v2/a/manifests/{reference}")).await;
        assert_eq!(gone.refused(), (404, "MANIFEST_UNKNOWN".to_owned()));
        let kept = replica.get(&format!("/v2/b/manifests/{reference}")).await;
        assert_eq!(kept.status, StatusCode::OK);
    }
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_nest_and_may_be_empty() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let image = image(&config, &config, 2);
    put_ok(&replica, &digest_of(&image).to_string(), OCI_MANIFEST, &image).await;
    let inner = index(&[child(&image)]);
    put_ok(&replica, &digest_of(&inner).to_string(), OCI_INDEX, &inner).await;
    let mut outer = index(&[descriptor(OCI_INDEX, &digest_of(&inner), inner.to_string().len())]);
    outer["artifactType"] = json!(ARTIFACT);
    for (tag, index) in [("outer", &outer), ("empty", &index(&[]))] {
        put_ok(&replica, tag, OCI_INDEX, index).await;
        let pulled = get_and_head(&replica, &format!("/v2/a/manifests/{tag}")).await;
        assert_eq!(pulled.body, index.to_string().as_bytes());
        assert_eq!(pulled.header("content-type"), OCI_INDEX);
    }
    let listed = replica.get("/v2/a/tags/list").await.json();
    assert_eq!(listed["tags"], json!(["empty", "outer"]));
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_with_fields_beyond_the_usual_come_back_as_they_were() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let mut odd = image(&config, &config, 2);
    odd["config"]["data"] = json!("e30=");
    odd["org.example.custom"] = json!({ "nested": [1, 2.5, null, "x"] });
    let mut foreign = image(&config, &config, 2);
    let nowhere = never_pushed("kept by its author");
    foreign["layers"] = json!([
        { "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
          "digest": nowhere, "size": 9, "urls": ["https://layers.invalid/x"] }
    ]);
    let mut no_layers = image(&config, &config, 2);
    no_layers["layers"] = json!([]);
    no_layers["artifactType"] = json!(ARTIFACT);
    let mut large = image(&config, &config, 2);
    let text = "A".repeat(10_000);
    let annotations = (0..390).map(|number| (format!("large-{number}"), json!(text)));
    large["annotations"] = Value::Object(annotations.collect());
    for (tag, manifest) in
        [("odd", &odd), ("foreign", &foreign), ("no-layers", &no_layers), ("large", &large)]
    {
        let pushed = put_ok(&replica, tag, OCI_MANIFEST, manifest).await;
        assert!(!pushed.headers.contains_key("warning"), "{tag}");
        let pulled = get_and_head(&replica, &format!("/v2/a/manifests/{tag}")).await;
        assert_eq!(pulled.body, manifest.to_string().as_bytes(), "{tag}");
    }
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn referrers_are_listed_filtered_and_forgotten() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let subject = image(&config, &config, 2);
    let referrer = |kind: &str, manifest: &mut Value| {
        manifest["subject"] = child(&subject);
        manifest["artifactType"] = json!(kind);
        manifest["annotations"] = json!({ "org.example.kind": kind });
    };
    let mut artifact = image(&config, &config, 2);
    referrer(ARTIFACT, &mut artifact);
    let mut other = index(&[]);
    referrer("application/vnd.example.other", &mut other);
    // Referrers may come before what they refer to.
    for (kind, manifest) in [(OCI_MANIFEST, &artifact), (OCI_INDEX, &other)] {
        let pushed = put_ok(&replica, &digest_of(manifest).to_string(), kind, manifest).await;
        assert_eq!(pushed.header("oci-subject"), digest_of(&subject).to_string());
    }
    let plain = put_ok(&replica, "subject", OCI_MANIFEST, &subject).await;
    assert!(!plain.headers.contains_key("oci-subject"));

    let path = format!("/v2/a/referrers/{}", digest_of(&subject));
    let all = get_and_head(&replica, &path).await;
    assert_eq!(all.header("content-type"), OCI_INDEX);
    assert!(!all.headers.contains_key("oci-filters-applied"));
    let listed = all.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    for (manifest, kind) in [(&artifact, OCI_MANIFEST), (&other, OCI_INDEX)] {
        let mut expected = descriptor(kind, &digest_of(manifest), manifest.to_string().len());
        expected["artifactType"] = manifest["artifactType"].clone();
        expected["annotations"] = manifest["annotations"].clone();
        assert!(listed.contains(&expected), "{expected} is not in {listed:?}");
    }
    let some = get_and_head(&replica, &format!("{path}?artifactType={ARTIFACT}")).await;
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    assert_eq!(some.json()["manifests"][0]["digest"], digest_of(&artifact).to_string());
    assert_eq!(some.json()["manifests"].as_array().unwrap().len(), 1);

    let manifest = format!("/v2/a/manifests/{}", digest_of(&artifact));
    assert_eq!(delete(&replica, &manifest).await, StatusCode::ACCEPTED);
    let left = replica.get(&path).await.json();
    assert_eq!(left["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(left["manifests"][0]["digest"], digest_of(&other).to_string());
    replica.consensus.shutdown().await;
}

/// The pages of a list of referrers: the digests on each.
async fn pages(replica: &Replica, path: &str) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), Some(path.to_owned()));
    while let Some(path) = next {
        let page = replica.get(&path).await;
        assert_eq!(page.status, StatusCode::OK);
        let link = page.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        let listed = page.json()["manifests"].as_array().unwrap().clone();
        pages.push(listed.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect());
    }
    pages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn referrers_of_megabytes_come_in_pages_and_bound_a_search() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let subject = image(&config, &config, 2);
    let mut pushed = Vec::new();
    for number in 0..9 {
        let mut artifact = image(&config, &config, 2);
        artifact["subject"] = child(&subject);
        artifact["artifactType"] = json!(ARTIFACT);
        artifact["annotations"] = json!({ "n": format!("{number}"), "text": "x".repeat(3 << 20) });
        let digest = digest_of(&artifact).to_string();
        put_ok(&replica, &digest, OCI_MANIFEST, &artifact).await;
        pushed.push(digest);
    }
    pushed.sort_unstable();
    let path = format!("/v2/a/referrers/{}", digest_of(&subject));
    for path in [path.clone(), format!("{path}?artifactType={ARTIFACT}")] {
        let pages = pages(&replica, &path).await;
        // Two of them are more than a client can be expected to take at once.
        assert_eq!(pages.len(), 9);
        assert_eq!(pages.concat(), pushed);
    }
    // Six of three megabytes are all that one request looks at.
    let none: Vec<String> = Vec::new();
    assert_eq!(pages(&replica, &format!("{path}?artifactType=other")).await, [none.clone(), none]);
    replica.consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_are_seen_at_once() {
    let replica = replica().await;
    let config = replica.push_blob("a", b"{}").await;
    let manifest = image(&config, &config, 2);
    let digest = digest_of(&manifest);
    for tag in ["v1", "v2"] {
        put_ok(&replica, tag, OCI_MANIFEST, &manifest).await;
    }
    assert_eq!(delete(&replica, "/v2/a/manifests/v1").await, StatusCode::ACCEPTED);
    let gone = replica.get("/v2/a/manifests/v1").await;
    assert_eq!(gone.refused(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(replica.get("/v2/a/tags/list").await.json()["tags"], json!(["v2"]));
    assert_eq!(delete(&replica, "/v2/a/manifests/v1").await, StatusCode::NOT_FOUND);
    let by_digest = format!("/v2/a/manifests/{digest}");
    assert_eq!(replica.get(&by_digest).await.status, StatusCode::OK);
    assert_eq!(delete(&replica, &by_digest).await, StatusCode::ACCEPTED);
    assert_eq!(replica.get("/v2/a/manifests/v2").await.status, StatusCode::NOT_FOUND);
    assert_eq!(replica.get("/v2/a/tags/list").await.json()["tags"], json!([]));
    replica.consensus.shutdown().await;
}

/// The released suite asks for a manifest whose name no tag can have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_cannot_be_is_one_that_is_not() {
    let replica = replica().await;
    for method in ["GET", "HEAD"] {
        let answer =
            replica.send(method, "/v2/a/manifests/.INVALID_NAME", &[], Body::empty()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let refused = put(&replica, ".INVALID_NAME", OCI_MANIFEST, &json!({})).await;
    assert_eq!(refused.refused(), (400, "NAME_INVALID".to_owned()));
    replica.consensus.shutdown().await;
}
