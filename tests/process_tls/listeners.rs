//! The ops and the webhook listener with TLS, and the command that asks the former.

use std::process::Command;

use crate::authority::Authority;
use crate::process::{Replica, value_of};
use crate::until;

async fn ask(client: &reqwest::Client, url: &str) -> Option<(u16, String)> {
    let answer = client.get(url).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

fn status(args: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tercet")).arg("status").args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_ops_listener_speaks_tls_and_status_asks_it() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let mut replica = Replica::new();
    authority.issue("ops").write(replica.dir.path());
    let ca = authority.write(&replica.path("ca.pem"));
    let client_ca = clients.write(&replica.path("clients.pem"));
    let admin = clients.issue("admin");
    let (certificate, key) = (replica.path("admin.pem"), replica.path("admin.key"));
    std::fs::write(&certificate, &admin.chain).unwrap();
    std::fs::write(&key, &admin.key).unwrap();
    replica.start(&format!(
        "{}client_ca = {client_ca:?}\nclient_auth = \"required\"\n",
        replica.tls_section("ops")
    ));
    let base = format!("https://{}", replica.ops);
    let http = authority.http(Some(&admin));
    let ready = format!("{base}/readyz");
    until("a ready replica", async || ask(&http, &ready).await.filter(|(code, _)| *code == 200))
        .await;
    let (_, metrics) = ask(&http, &format!("{base}/metrics")).await.unwrap();
    let expiry = "tercet_tls_certificate_expiry_timestamp_seconds{listener=\"ops\"}";
    assert!(value_of(&metrics, expiry) > Some(1.8e9), "{metrics}");
    assert_eq!(ask(&authority.http(None), &ready).await, None);

    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, certificate, key) = (path(&ca), path(&certificate), path(&key));
    let identity = ["--certificate", &certificate, "--key", &key];
    let whole = [&["--ops", &base, "--ca", &ca][..], &identity].concat();
    let (code, text) = status(&whole);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("tercet-0"), "{text}");
    // Without the certificate, without the authority, and without TLS.
    assert_eq!(status(&["--ops", &base, "--ca", &ca]).0, Some(69));
    assert_eq!(status(&[&["--ops", &base][..], &identity].concat()).0, Some(69));
    assert_eq!(status(&["--ops", &replica.ops]).0, Some(69));
    let (code, text) = status(&["--ops", &replica.ops, "--ca", &ca]);
    assert_eq!(code, Some(64), "{text}");
}

#[tokio::test]
async fn the_webhook_listener_is_opened_with_tls_only_and_decides_nothing() {
    let authority = Authority::new();
    let mut replica = Replica::new();
    authority.issue("webhook").write(replica.dir.path());
    replica.start(&replica.tls_section("webhook"));
    replica.ready().await;
    let http = authority.http(None);
    let base = format!("https://{}", replica.webhook);
    assert_eq!(ask(&http, &format!("{base}/livez")).await, Some((200, "alive\n".to_owned())));
    assert_eq!(ask(&http, &format!("{base}/readyz")).await.unwrap().0, 200);
    let review = http.post(format!("{base}/validate")).body("{}").send().await.unwrap();
    assert_eq!(review.status(), 404);
    let body: serde_json::Value = review.json().await.unwrap();
    assert!(body["error"].as_str().unwrap().contains("decides nothing"), "{body}");
    assert_eq!(ask(&http, &format!("{base}/metrics")).await.unwrap().0, 404);
    let requests = "tercet_http_requests_total{listener=\"webhook\",method=\"POST\",\
                    route=\"other\",status=\"4xx\"}";
    assert_eq!(replica.metric(requests).await, Some(1.0));
    assert!(replica.stop().await.success());

    let mut without = Replica::new();
    without.start("");
    without.ready().await;
    assert!(tokio::net::TcpStream::connect(&without.webhook).await.is_err());
}
