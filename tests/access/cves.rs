//! Faults that other registries had, tried here.

use std::time::Instant;

use reqwest::StatusCode;
use serde_json::json;
use tercet_storage::{Algorithm, Digest};

use crate::support::{Answer, HANG, Replica, Who, image, rule};

const ALICE: Who = Who::User("alice");
const BOB: Who = Who::User("bob");
const MALLORY: Who = Who::User("mallory");

/// Alice owns everything; Bob has `team`, Mallory has `mallory` and whatever is public.
async fn replica() -> Replica {
    let rules = [
        rule("anonymous", &["public/**"], &["pull"]),
        rule("user:alice", &["**"], &["*"]),
        rule("user:bob", &["team/**"], &["*"]),
        rule("user:mallory", &["mallory/**"], &["*"]),
    ];
    Replica::start(&["alice", "bob", "mallory"], &rules).await
}

/// What two answers must not tell apart: everything but what names the session.
fn shape(answer: &Answer) -> (u16, Vec<String>) {
    let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    names.sort();
    (answer.status.as_u16(), names)
}

/// zot copied a blob into another repository on HEAD and mount without asking for the right to read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2024_39897_a_private_blob_is_not_there_for_others() {
    let replica = replica().await;
    let (manifest, layer) = replica.push_image(BOB, "team/app", "v1", b"private bytes").await;
    let absent = Digest::of(Algorithm::Sha256, b"never pushed");
    replica.push_image(MALLORY, "mallory/app", "v1", b"other bytes").await;

    for from in ["&from=team/app", "&from=team/none", "&from=mallory/app", ""] {
        let mount =
            |digest: &Digest| format!("/v2/mallory/app/blobs/uploads/?mount={digest}{from}");
        let private = replica.call(MALLORY, "POST", &mount(&layer)).await;
        let nothing = replica.call(MALLORY, "POST", &mount(&absent)).await;
        assert_eq!(private.status, StatusCode::ACCEPTED, "{from}: {private:?}");
        assert_eq!(shape(&private), shape(&nothing), "{from}");
        assert_eq!(private.body, nothing.body, "{from}");
    }
    for method in ["HEAD", "GET"] {
        for path in [
            format!("/v2/mallory/app/blobs/{layer}"),
            format!("/v2/mallory/app/manifests/{manifest}"),
            format!("/v2/mallory/new/blobs/{layer}"),
        ] {
            let asked = replica.call(MALLORY, method, &path).await;
            assert_eq!(asked.status, StatusCode::NOT_FOUND, "{method} {path}: {asked:?}");
        }
        let there = format!("/v2/team/app/blobs/{layer}");
        assert_eq!(replica.call(MALLORY, method, &there).await.status, StatusCode::FORBIDDEN);
    }
    // Nor does naming it in a manifest make it readable, or tell whether it is somewhere.
    let config = replica.push_blob(MALLORY, "mallory/app", b"{}").await;
    let naming = |digest: &Digest| image(&config, digest, 13);
    let private = replica.put_manifest(MALLORY, "mallory/app", "steal", &naming(&layer)).await;
    let nothing = replica.put_manifest(MALLORY, "mallory/app", "steal", &naming(&absent)).await;
    assert_eq!(private.refused(), nothing.refused());
    let path = format!("/v2/mallory/app/blobs/{layer}");
    assert_eq!(replica.call(MALLORY, "GET", &path).await.status, StatusCode::NOT_FOUND);
    // Who may read both mounts.
    let mount = format!("/v2/mallory/app/blobs/uploads/?mount={layer}&from=team/app");
    assert_eq!(replica.call(ALICE, "POST", &mount).await.status, StatusCode::CREATED);
}

/// zot only ever added to a user's groups: a right that was taken away stayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2025_23208_a_right_that_is_taken_away_is_gone() {
    let replica = replica().await;
    replica.push_image(BOB, "team/app", "v1", b"bytes").await;
    let scope = "repository:team/app:pull,push,delete";
    let bobs = replica.token(BOB, &[scope]).await.token();
    let mallorys = replica.token(MALLORY, &["repository:mallory/app:pull"]).await.token();
    let with = async |token: &str, path: &str| {
        replica.send(replica.with_token(token, "GET", path)).await.status.as_u16()
    };
    assert_eq!(with(&bobs, "/v2/team/app/tags/list").await, 200);
    assert_eq!(with(&mallorys, "/v2/mallory/app/tags/list").await, 404);

    // Bob loses his right while his token has minutes to live.
    let rules = replica.config_text().replace("user:bob", "user:alice");
    replica.replace("tercet.toml", &rules);
    let began = Instant::now();
    while with(&bobs, "/v2/team/app/tags/list").await != 403 {
        assert!(began.elapsed() < HANG, "the old rules still count:\n{}", replica.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(replica.call(BOB, "GET", "/v2/team/app/tags/list").await.status, 403);
    assert_eq!(with(&mallorys, "/v2/mallory/app/tags/list").await, 404);

    // Mallory's account is closed.
    let users = std::fs::read_to_string(replica.dir.path().join("htpasswd")).unwrap();
    let left: String = users
        .lines()
        .filter(|line| !line.starts_with("mallory:"))
        .map(|l| format!("{l}\n"))
        .collect();
    replica.replace("htpasswd", &left);
    let began = Instant::now();
    while with(&mallorys, "/v2/mallory/app/tags/list").await != 401 {
        assert!(began.elapsed() < HANG, "the account still counts:\n{}", replica.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(replica.call(MALLORY, "GET", "/v2/").await.status, 401);
    assert_eq!(replica.call(ALICE, "GET", "/v2/team/app/tags/list").await.status, 200);
}

/// zot let a user with nothing but the right to create move a tag that was there. Here whoever may push may
/// move tags, and what must not move is said by a rule about tags, which holds for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_31801_a_tag_that_must_not_move_does_not() {
    let rules = [
        rule("user:alice", &["**"], &["*"]),
        rule("user:bob", &["team/**"], &["pull", "push"]),
        "[[access.immutable_tags]]\nname = \"fixed\"\nrepositories = [\"team/**\"]\n\
         tags = [\"latest\", \"probe-*\"]\n"
            .to_owned(),
    ];
    let replica = Replica::start(&["alice", "bob"], &rules).await;
    let config = replica.push_blob(BOB, "team/app", b"{}").await;
    let [one, two] = [b"one", b"two"];
    let one = image(&config, &replica.push_blob(BOB, "team/app", one).await, 3);
    let two = image(&config, &replica.push_blob(BOB, "team/app", two).await, 3);
    // The leader's list reaches the state machine a moment after the start.
    let began = Instant::now();
    for probe in 0.. {
        let tag = format!("probe-{probe}");
        replica.put_manifest(BOB, "team/app", &tag, &one).await;
        if replica.put_manifest(BOB, "team/app", &tag, &two).await.status == StatusCode::CONFLICT {
            break;
        }
        assert!(began.elapsed() < HANG, "nothing is immutable:\n{}", replica.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let first = replica.put_manifest(BOB, "team/app", "latest", &one).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    for who in [BOB, ALICE] {
        let moved = replica.put_manifest(who, "team/app", "latest", &two).await;
        assert_eq!(moved.refused(), (409, "DENIED".to_owned()), "{moved:?}");
    }
    let latest = replica.call(BOB, "GET", "/v2/team/app/manifests/latest").await;
    assert_eq!(latest.body, one.to_string().as_bytes());
}

/// The CNCF registry asked for the right to delete only where the path held a digest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_41888_a_tag_is_not_deleted_without_the_right_to() {
    let rules = [rule("user:alice", &["**"], &["*"]), rule("user:bob", &["**"], &["pull", "push"])];
    let replica = Replica::start(&["alice", "bob"], &rules).await;
    let (manifest, layer) = replica.push_image(BOB, "team/app", "v1", b"bytes").await;
    for path in [
        "/v2/team/app/manifests/v1".to_owned(),
        format!("/v2/team/app/manifests/{manifest}"),
        format!("/v2/team/app/blobs/{layer}"),
    ] {
        let refused = replica.call(BOB, "DELETE", &path).await;
        assert_eq!(refused.refused(), (403, "DENIED".to_owned()), "{path}");
        assert_eq!(replica.call(BOB, "HEAD", &path).await.status, StatusCode::OK, "{path}");
    }
    let tag = replica.call(ALICE, "DELETE", "/v2/team/app/manifests/v1").await;
    assert_eq!(tag.status, StatusCode::ACCEPTED);
}

/// Quay let others who could push to the repository read and change somebody's upload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_32589_an_upload_belongs_to_the_one_who_opened_it() {
    let replica = replica().await;
    let session = replica.open_upload(BOB, "team/app").await;
    let request = replica.request(BOB, "PATCH", &session).body("secret ");
    assert_eq!(replica.send(request).await.status, StatusCode::ACCEPTED);
    let digest = Digest::of(Algorithm::Sha256, b"secret bytes");
    let closing = format!("{session}?digest={digest}");

    // Alice may push here as well; Mallory and a stranger may not.
    let alices = replica.token(ALICE, &["repository:team/app:pull,push"]).await.token();
    for (method, path) in [
        ("GET", &session),
        ("HEAD", &session),
        ("PATCH", &session),
        ("PUT", &closing),
        ("DELETE", &session),
    ] {
        let body = if method == "PATCH" || method == "PUT" { "bytes" } else { "" };
        for request in
            [replica.request(ALICE, method, path), replica.with_token(&alices, method, path)]
        {
            let refused = replica.send(request.body(body)).await;
            assert_eq!(refused.status, StatusCode::NOT_FOUND, "{method}: {refused:?}");
        }
        for (who, status) in [(MALLORY, 403), (Who::Anonymous, 401)] {
            let refused = replica.send(replica.request(who, method, path).body(body)).await;
            assert_eq!(refused.status, status, "{who:?} {method}: {refused:?}");
        }
        // Not under a repository of one's own either.
        let elsewhere = path.replace("/v2/team/app/", "/v2/mallory/app/");
        let refused = replica.send(replica.request(MALLORY, method, &elsewhere).body(body)).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{method}: {refused:?}");
    }
    // A name tag that is changed names another session.
    let (front, back) = session.split_at(session.len() - 16);
    let forged = format!("{front}{}", back.chars().rev().collect::<String>());
    assert_eq!(replica.call(ALICE, "GET", &forged).await.status, StatusCode::NOT_FOUND);

    let state = replica.call(BOB, "GET", &session).await;
    assert_eq!((state.status, state.header("range")), (StatusCode::NO_CONTENT, "0-6"));
    // With a password or a token, it is the same Bob.
    let bobs = replica.token(BOB, &["repository:team/app:pull,push"]).await.token();
    let closed = replica.send(replica.with_token(&bobs, "PUT", &closing).body("bytes")).await;
    assert_eq!(closed.status, StatusCode::CREATED, "{closed:?}");
}

/// Gitea served private images to whoever asked without credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_27771_nothing_private_is_served_to_anonymous() {
    let replica = replica().await;
    let (manifest, layer) = replica.push_image(ALICE, "team/app", "v1", b"same bytes").await;
    replica.push_image(ALICE, "public/app", "v1", b"same bytes").await;
    let token = replica.token(Who::Anonymous, &["repository:team/app:pull"]).await.token();
    for path in [
        "/v2/NAME/manifests/v1".to_owned(),
        format!("/v2/NAME/manifests/{manifest}"),
        format!("/v2/NAME/blobs/{layer}"),
        "/v2/NAME/tags/list".to_owned(),
        format!("/v2/NAME/referrers/{manifest}"),
    ] {
        for method in ["GET", "HEAD"] {
            let public = path.replace("NAME", "public/app");
            assert_eq!(replica.call(Who::Anonymous, method, &public).await.status, StatusCode::OK);
            // The same content is private where it is.
            let private = path.replace("NAME", "team/app");
            let refused = replica.call(Who::Anonymous, method, &private).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method} {private}");
            let refused = replica.send(replica.with_token(&token, method, &private)).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method} {private}");
        }
    }
    let listed = replica.call(Who::Anonymous, "GET", "/v2/_catalog").await;
    assert_eq!(listed.json(), json!({ "repositories": ["public/app"] }));
}

/// Harbor looked for the right on one project and acted on the object that an id in the same URL named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2022_31667_the_right_is_asked_for_what_is_acted_on() {
    let replica = replica().await;
    let (manifest, layer) = replica.push_image(BOB, "team/app", "v1", b"bytes").await;
    replica.push_image(MALLORY, "mallory/app", "v1", b"other").await;
    let session = replica.open_upload(BOB, "team/app").await;
    let id = session.rsplit('/').next().unwrap();

    // A digest or a session of somebody else, under a name of one's own: not there.
    for (method, path) in [
        ("GET", format!("/v2/mallory/app/manifests/{manifest}")),
        ("DELETE", format!("/v2/mallory/app/manifests/{manifest}")),
        ("DELETE", format!("/v2/mallory/app/blobs/{layer}")),
        ("DELETE", format!("/v2/mallory/app/blobs/uploads/{id}")),
        ("PATCH", format!("/v2/mallory/app/blobs/uploads/{id}")),
    ] {
        let refused = replica.call(MALLORY, method, &path).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{method} {path}: {refused:?}");
    }
    let referrers = format!("/v2/mallory/app/referrers/{manifest}");
    let referrers = replica.call(MALLORY, "GET", &referrers).await;
    assert_eq!(referrers.json()["manifests"], json!([]));
    // A name that becomes another one when somebody decodes or cleans it.
    for path in [
        "/v2/mallory/../team/app/manifests/v1",
        "/v2/mallory%2f..%2fteam%2fapp/manifests/v1",
        "/v2/mallory/%2e%2e/team/app/manifests/v1",
        "/v2//team/app/manifests/v1",
        "/v2/mallory/app/manifests/../../../team/app/manifests/v1",
    ] {
        let answer = raw_get(&replica, path).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
    }
    // Everything of Bob's is as it was.
    assert_eq!(replica.call(BOB, "GET", &session).await.status, StatusCode::NO_CONTENT);
    let path = format!("/v2/team/app/blobs/{layer}");
    assert_eq!(replica.call(BOB, "GET", &path).await.status, StatusCode::OK);
    let path = "/v2/team/app/manifests/v1";
    assert_eq!(replica.call(BOB, "GET", path).await.status, StatusCode::OK);
}

/// As Mallory, with the path exactly as it is written here.
async fn raw_get(replica: &Replica, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = replica.host();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    let credentials = "bWFsbG9yeTp5cm9sbGFt"; // mallory:yrollam
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {credentials}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Harbor came with a password for its administrator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_4404_there_is_no_password_that_nobody_set() {
    let defaults = tercet::config::Config::default();
    assert!(defaults.access.rules.is_empty() && defaults.access.robots.is_empty());
    assert!(defaults.access.htpasswd.is_none());
    assert!(defaults.registry.listen.ip().is_loopback());

    let replica = Replica::start(&["alice"], &[rule("user:*", &["**"], &["*"])]).await;
    for (user, password) in [
        ("admin", "admin"),
        ("admin", "Harbor12345"),
        ("admin", ""),
        ("tercet", "tercet"),
        ("root", ""),
        ("", ""),
        ("robot:", ""),
        ("alice", ""),
        ("alice", "alice"),
    ] {
        let refused = replica.call(Who::Password(user, password), "GET", "/v2/").await;
        let status = refused.status.as_u16();
        assert!(status == 401 || status == 429, "{user}:{password}: {refused:?}");
    }
}

/// What only replicas may say, said by a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cannot_pass_for_a_replica() {
    let replica = replica().await;
    replica.push_image(BOB, "team/app", "v1", b"bytes").await;
    let session = replica.open_upload(BOB, "team/app").await;
    let forged = |path: &str| {
        replica
            .request(Who::Anonymous, "GET", path)
            .header("tercet-sender-node", "1")
            .header("tercet-cluster-id", "x")
            .header("x-forwarded-for", "127.0.0.1")
            .header("x-forwarded-user", "alice")
            .header("forwarded", "for=127.0.0.1")
    };
    for path in ["/v2/team/app/manifests/v1", session.as_str()] {
        assert_eq!(replica.send(forged(path)).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let id = session.rsplit('/').next().unwrap();
    for path in [format!("/_tercet/uploads/{id}"), format!("/forward{session}")] {
        assert_eq!(replica.send(forged(&path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
