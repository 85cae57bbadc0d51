//! A real HTTP exchange through kube's client, with answers as an API server gave them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::config::Limits;
use crate::ops::Metrics;
use crate::server::{Server, ServerLimits, ServerParts};
use crate::worker::Workers;

/// Three parts as a real one has; what is in them only the API server judges.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl";
const BUILDER: &str = "system:serviceaccount:ci:builder";

/// What an API server of 1.35 answered, without `managedFields`.
fn answer(status: Value) -> Value {
    json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": { "creationTimestamp": null },
        "spec": { "token": TOKEN },
        "status": status,
    })
}

fn yes(user: &str, audiences: &[&str]) -> Value {
    answer(json!({
        "authenticated": true,
        "user": {
            "username": user,
            "uid": "5b1c1d4e-5d0e-4d43-8f4a-3a8d3c1d2e4f",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"],
            "extra": { "authentication.kubernetes.io/credential-id": ["JTI=0b1e"] },
        },
        "audiences": audiences,
    }))
}

fn no() -> Value {
    answer(json!({ "user": {}, "error": "[invalid bearer token, token lookup failed]" }))
}

/// An API server of one answer.
struct ApiServer {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
    _workers: Workers,
}

impl ApiServer {
    async fn start(status: StatusCode, body: String) -> Self {
        Self::answering(move || {
            let answer = (status, [("content-type", "application/json")], body.clone());
            std::future::ready(answer.into_response())
        })
        .await
    }

    async fn answering<F, A>(answer: F) -> Self
    where
        F: Fn() -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let (log, answer) = (Arc::clone(&log), answer());
            async move {
                let line = format!("{} {}", request.method(), request.uri());
                let bearer = request.headers().get("authorization").cloned();
                let body: Body = request.into_body();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                log.lock().unwrap().push(json!({
                    "line": line,
                    "bearer": bearer.map(|bearer| bearer.to_str().unwrap().to_owned()),
                    "body": serde_json::from_slice::<Value>(&body).unwrap(),
                }));
                answer.await
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let workers = Workers::new();
        let _ = Server::start(
            &workers,
            ServerParts {
                listener,
                router,
                tls: None,
                limits: ServerLimits::ops(&Limits::default()),
                metrics: Arc::new(Metrics::new().unwrap()),
            },
        );
        let dir = tempfile::tempdir().unwrap();
        write_kubeconfig(&dir.path().join("kubeconfig"), &format!("http://{address}"));
        Self { dir, asked, _workers: workers }
    }

    async fn reviewer(&self, audiences: &[&str]) -> TokenReviewer {
        reviewer(&self.dir.path().join("kubeconfig"), audiences).await
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

fn write_kubeconfig(path: &Path, server: &str) {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": { "server": server } }],
        "users": [{ "name": "tercet", "user": { "token": "own-token-of-tercet" } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "tercet" } }],
        "current-context": "test",
    });
    std::fs::write(path, text.to_string()).unwrap();
}

async fn reviewer(kubeconfig: &Path, audiences: &[&str]) -> TokenReviewer {
    // As `main` does; a second time changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Kubernetes {
        enabled: true,
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        kubeconfig: Some(kubeconfig.to_owned()),
    };
    TokenReviewer::connect(&settings).await.unwrap().unwrap()
}

fn builder() -> Principal {
    Principal::ServiceAccount { namespace: "ci".to_owned(), name: "builder".to_owned() }
}

#[tokio::test]
async fn an_authenticated_token_is_its_service_account_and_is_asked_about_once() {
    let server = ApiServer::start(StatusCode::CREATED, yes(BUILDER, &["tercet"]).to_string()).await;
    let reviewer = server.reviewer(&["tercet", "other"]).await;
    assert_eq!(reviewer.remembered(TOKEN), None);
    assert_eq!(reviewer.review(TOKEN).await, Reviewed::Yes(builder()));
    assert_eq!(reviewer.remembered(TOKEN), Some(Reviewed::Yes(builder())));
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    let line = asked[0]["line"].as_str().unwrap();
    assert!(line.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews"), "{line}");
    assert_eq!(asked[0]["bearer"], "Bearer own-token-of-tercet");
    let spec = json!({ "audiences": ["tercet", "other"], "token": TOKEN });
    assert_eq!(asked[0]["body"]["spec"], spec);
}

#[tokio::test]
async fn without_audiences_the_api_servers_own_counts() {
    let audience = "https://kubernetes.default.svc.cluster.local";
    let server = ApiServer::start(StatusCode::CREATED, yes(BUILDER, &[audience]).to_string()).await;
    let reviewer = server.reviewer(&[]).await;
    assert_eq!(reviewer.review(TOKEN).await, Reviewed::Yes(builder()));
    assert_eq!(server.asked()[0]["body"]["spec"], json!({ "token": TOKEN }));
}

#[tokio::test]
async fn a_token_that_is_not_authenticated_is_refused_and_remembered() {
    for status in [
        no(),
        answer(json!({ "authenticated": false, "user": { "username": BUILDER } })),
        answer(json!({ "user": { "username": BUILDER } })),
        answer(json!({})),
    ] {
        let server = ApiServer::start(StatusCode::CREATED, status.to_string()).await;
        let reviewer = server.reviewer(&[]).await;
        let refused = Reviewed::No("the Kubernetes token is not valid");
        assert_eq!(reviewer.review(TOKEN).await, refused);
        assert_eq!(reviewer.remembered(TOKEN), Some(refused));
    }
}

#[tokio::test]
async fn a_yes_for_another_audience_or_for_none_is_a_no() {
    for audiences in [&["other"][..], &[]] {
        let server =
            ApiServer::start(StatusCode::CREATED, yes(BUILDER, audiences).to_string()).await;
        let reviewed = server.reviewer(&["tercet"]).await.review(TOKEN).await;
        assert_eq!(reviewed, Reviewed::No("the Kubernetes token is for another audience"));
    }
}

#[tokio::test]
async fn only_service_accounts_count() {
    for user in [
        "",
        "admin",
        "system:node:worker-1",
        "system:serviceaccount:ci",
        "system:serviceaccount::builder",
        "system:serviceaccount:ci:",
        "system:serviceaccount:ci:a:b",
        "system:serviceaccount:../x:y",
        "system:serviceaccount:ci/x:y",
        "System:serviceaccount:ci:builder",
    ] {
        let server = ApiServer::start(StatusCode::CREATED, yes(user, &[]).to_string()).await;
        let reviewed = server.reviewer(&[]).await.review(TOKEN).await;
        let refused = Reviewed::No("the Kubernetes token is not a service account's");
        assert_eq!(reviewed, refused, "{user}");
    }
}

#[tokio::test]
async fn an_error_of_the_api_server_is_unknown_is_not_remembered_and_repeats_no_token() {
    let error = |code: u16, message: &str| {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Forbidden", "code": code,
        })
        .to_string()
    };
    let forbidden = format!("tokenreviews is forbidden: cannot create; token {TOKEN}");
    for (code, body) in [
        (403, error(403, &forbidden)),
        (500, error(500, "etcd is away")),
        (503, "Service Unavailable".to_owned()),
        (201, format!("garbage {TOKEN}")),
        (201, "[]".to_owned()),
        (200, String::new()),
    ] {
        let server = ApiServer::start(StatusCode::from_u16(code).unwrap(), body).await;
        let reviewer = server.reviewer(&[]).await;
        let Reviewed::Unknown(why) = reviewer.review(TOKEN).await else { panic!("{code}") };
        assert!(!why.contains(TOKEN) && why.len() <= 4 * TOLD_CHARS_MAX, "{why}");
        assert_eq!(reviewer.remembered(TOKEN), None);
        assert_eq!(server.asked().len(), 1, "{code}: no retries");
    }
}

#[tokio::test]
async fn an_api_server_that_never_answers_or_is_not_there_is_unknown_within_the_deadline() {
    let silent = ApiServer::answering(|| async {
        std::future::pending::<()>().await;
        unreachable!()
    })
    .await;
    // The test itself has no deadline of seconds: a hang is what it would find.
    let Reviewed::Unknown(why) = silent.reviewer(&[]).await.review(TOKEN).await else { panic!() };
    assert!(why.contains("did not answer"), "{why}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    write_kubeconfig(&path, &format!("http://{free}"));
    let away = reviewer(&path, &[]).await.review(TOKEN).await;
    assert!(matches!(away, Reviewed::Unknown(_)), "{away:?}");
}

#[tokio::test]
async fn what_is_no_token_is_not_shown_to_anybody() {
    let server = ApiServer::start(StatusCode::CREATED, yes(BUILDER, &[]).to_string()).await;
    let reviewer = server.reviewer(&[]).await;
    let long = format!("a.b.{}", "c".repeat(TOKEN_BYTES_MAX));
    for password in ["", "hunter2", "a.b", "a.b.c.d", "a..c", "a.b.c d", "a.b.\u{e9}", &long] {
        let refused = Reviewed::No("the password is no Kubernetes token");
        assert_eq!(reviewer.review(password).await, refused, "{password}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_wrong_kubeconfig_is_an_error_of_the_start_and_switched_off_is_none() {
    assert!(TokenReviewer::connect(&Kubernetes::default()).await.unwrap().is_none());
    let missing = Kubernetes {
        enabled: true,
        kubeconfig: Some("/nonexistent/kubeconfig".into()),
        ..Kubernetes::default()
    };
    let error = TokenReviewer::connect(&missing).await.err().unwrap().to_string();
    assert!(error.starts_with("access.kubernetes.kubeconfig: /nonexistent/kubeconfig"), "{error}");
}
