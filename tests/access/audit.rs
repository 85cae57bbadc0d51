//! The audit log of a replica.

use serde_json::Value;

use crate::support::{Replica, Who, password, rule};

const WRITER: Who = Who::User("writer");

async fn replica() -> Replica {
    let rules = [rule("user:writer", &["team/**"], &["*"])];
    Replica::start(&["writer", "other"], &rules).await
}

fn brief(line: &Value) -> String {
    let text = |field: &str| match &line[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ["message", "principal", "action", "repository", "status"].map(text).join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_is_a_line_and_no_read_is() {
    let replica = replica().await;
    let (manifest, layer) = replica.push_image(WRITER, "team/app", "v1", b"bytes").await;
    let session = replica.open_upload(WRITER, "team/app").await;
    replica.send(replica.request(WRITER, "PATCH", &session).body("x")).await;
    replica.call(WRITER, "GET", &session).await;
    replica.call(WRITER, "DELETE", &session).await;
    let mount = format!("/v2/team/new/blobs/uploads/?mount={layer}&from=team/app");
    replica.call(WRITER, "POST", &mount).await;
    for path in ["/v2/", "/v2/_catalog", "/v2/team/app/tags/list", "/v2/team/app/manifests/v1"] {
        replica.call(WRITER, "GET", path).await;
    }
    replica.call(WRITER, "DELETE", "/v2/team/app/manifests/v1").await;
    let request = replica.request(WRITER, "DELETE", &format!("/v2/team/app/manifests/{manifest}"));
    replica.send(request.header("x-request-id", "r-4711")).await;
    replica.call(WRITER, "DELETE", &format!("/v2/team/app/manifests/{manifest}")).await;

    let lines = replica.audit(10).await;
    let told: Vec<String> = lines.iter().map(brief).collect();
    assert_eq!(
        told,
        [
            "write user:writer blob.put team/app 201",
            "write user:writer blob.put team/app 201",
            "write user:writer manifest.put team/app 201",
            "write user:writer upload.open team/app 202",
            "write user:writer upload.append team/app 202",
            "write user:writer upload.cancel team/app 204",
            "write user:writer blob.mount team/new 201",
            "write user:writer tag.delete team/app 202",
            "write user:writer manifest.delete team/app 202",
            "write user:writer manifest.delete team/app 404",
        ]
    );
    let put = &lines[2];
    assert_eq!(put["reference"], "v1");
    assert_eq!(put["digest"], manifest.to_string());
    assert_eq!(put["level"], "INFO");
    assert!(put["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{put}");
    assert_eq!(lines[6]["reference"], format!("{layer} from team/app"));
    assert_eq!(lines[8]["request_id"], "r-4711");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_denial_is_a_line_and_an_invitation_to_log_in_is_none() {
    let replica = replica().await;
    let other = Who::User("other");
    replica.call(Who::Anonymous, "GET", "/v2/").await;
    replica.call(Who::Anonymous, "GET", "/v2/team/app/tags/list").await;
    replica.call(other, "GET", "/v2/team/app/tags/list").await;
    replica.call(other, "POST", "/v2/team/app/blobs/uploads/").await;
    replica.call(Who::Password("writer", "wrong"), "GET", "/v2/team/app/tags/list").await;
    replica.call(Who::Password("writer", "wrong"), "GET", "/token").await;
    let token = replica.token(WRITER, &["repository:team/app:pull"]).await.token();
    replica.send(replica.with_token(&token, "DELETE", "/v2/team/app/manifests/v1")).await;

    let told: Vec<String> = replica.audit(5).await.iter().map(brief).collect();
    assert_eq!(
        told,
        [
            "denied user:other tags.list team/app 403",
            "denied user:other upload.open team/app 403",
            "denied - tags.list team/app 401",
            "denied - token - 401",
            "denied user:writer tag.delete team/app 401",
        ]
    );
}

/// A client that goes away in the middle leaves a line, whether an answer was made for it or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_breaks_off_is_a_line() {
    use tokio::io::AsyncWriteExt;
    let replica = replica().await;
    let mut stream = tokio::net::TcpStream::connect(replica.host()).await.unwrap();
    let credentials = "d3JpdGVyOnJldGlydw=="; // writer:retirw
    let path = format!("/v2/team/app/blobs/uploads/?digest=sha256:{}", "0".repeat(64));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {credentials}\r\n\
         Content-Length: 1000\r\n\r\nonly this",
        replica.host()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // It is on the way when a session is on the disk.
    let uploads = replica.dir.path().join("data/uploads");
    let began = std::time::Instant::now();
    while std::fs::read_dir(&uploads).map_or(0, Iterator::count) == 0 {
        assert!(began.elapsed() < crate::support::HANG, "no upload:\n{}", replica.log());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(stream);
    let line = replica.audit(1).await.remove(0);
    assert_eq!((&line["action"], &line["principal"]), (&"blob.put".into(), &"user:writer".into()));
    assert!(line["message"].as_str().unwrap().starts_with("write"), "{line}");
    assert_ne!(line["status"], 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_guesses_is_seen() {
    let replica = replica().await;
    let mut asked = 0;
    loop {
        let answer = replica.call(Who::Password("writer", "guess"), "GET", "/v2/").await;
        asked += 1;
        if answer.status == 429 {
            assert_eq!(answer.refused().1, "TOOMANYREQUESTS");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!(wait > 0);
            break;
        }
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(asked < 1_000, "nothing slows it down");
    }
    let lines = replica.audit(asked).await;
    assert_eq!(brief(lines.last().unwrap()), "denied - login - 429");
}

/// CVE-2025-48374 (zot): secrets in logs. The replica here logs all it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_line() {
    let replica = replica().await;
    let token = replica.token(WRITER, &["repository:team/app:pull,push"]).await.token();
    replica.push_image(WRITER, "team/app", "v1", b"bytes").await;
    replica.send(replica.with_token(&token, "GET", "/v2/team/app/tags/list")).await;
    replica.send(replica.with_token(&format!("{token}x"), "GET", "/v2/")).await;
    // A password in the place of the name.
    replica.call(Who::Password("my-pass-word", ""), "GET", "/v2/").await;
    let form = "grant_type=password&service=tercet&username=writer&password=wrong-pass-word";
    let request = replica.request(Who::Anonymous, "POST", "/token");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    replica.send(request.body(form)).await;
    replica.audit(6).await;
    let log = replica.log();
    let signature = token.rsplit('.').next().unwrap();
    for secret in [
        password("writer").as_str(),
        "my-pass-word",
        "wrong-pass-word",
        signature,
        "$2",
        "uthorization",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}
