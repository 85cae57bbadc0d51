//! Service-account tokens as passwords, with an API server in this process. Its answers are a topic of
//! `src/auth/kubernetes_tests.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tercet::config::Limits;
use tercet::ops::Metrics;
use tercet::server::{Server, ServerLimits, ServerParts};
use tercet::worker::Workers;
use tokio::net::TcpListener;

use crate::replica::{Folder, Replica, Setup, answer};

pub(crate) const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJidWlsZGVyIn0.c2VydmljZS1hY2NvdW50";

/// Knows one token, if its status is 201; the kubeconfig for it is in the folder.
pub(crate) async fn api_server(folder: &Folder) -> (Workers, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(201));
    let answers = Arc::clone(&status);
    let router = Router::new().fallback(move |request: Request<Body>| {
        let status = StatusCode::from_u16(answers.load(Ordering::Relaxed)).unwrap();
        async move {
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let known = asked["spec"]["token"] == TOKEN;
            let review = json!({
                "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                "spec": asked["spec"],
                "status": {
                    "authenticated": known,
                    "user": { "username": "system:serviceaccount:ci:builder" },
                    "audiences": ["tercet"],
                },
            });
            (status, [("content-type", "application/json")], review.to_string()).into_response()
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let workers = Workers::new();
    let limits = ServerLimits::ops(&Limits::default());
    let metrics = Arc::new(Metrics::new().unwrap());
    let _ = Server::start(&workers, ServerParts { listener, router, tls: None, limits, metrics });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "tercet", "user": {} }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "tercet" } }],
    });
    folder.replace("kubeconfig", &kubeconfig.to_string());
    (workers, status)
}

pub(crate) fn setup(folder: &Folder) -> Setup {
    let access = format!(
        "[[access.rules]]\nsubject = \"serviceaccount:ci/builder\"\nrepositories = [\"ci/*\"]\n\
         actions = [\"push\", \"pull\"]\n[access.kubernetes]\nenabled = true\n\
         audiences = [\"tercet\"]\nkubeconfig = {:?}\n",
        folder.path("kubeconfig")
    );
    Setup { access, ..Setup::default() }
}

#[tokio::test]
async fn a_service_account_logs_in_pushes_and_gets_tokens() {
    let aside = Folder::new();
    let (_workers, status) = api_server(&aside).await;
    let replica = Replica::start(setup(&aside)).await;
    assert_eq!(replica.log_in("serviceaccount", TOKEN).await.status, 200);
    let push = |repository: &str, token: &str| {
        let path = format!("/v2/{repository}/blobs/uploads/");
        answer(replica.request("POST", &path).basic_auth("serviceaccount", Some(token)))
    };
    assert_eq!(push("ci/app", TOKEN).await.status, 202);
    assert_eq!(push("other/app", TOKEN).await.status, 403);
    assert_eq!(push("ci/app", "another.token.altogether").await.status, 401);
    let scope = ["repository:ci/app:pull,push"];
    let token = replica.token("serviceaccount", TOKEN, &scope).await;
    assert_eq!(replica.push("ci/app", &token).await.status, 202);
    // It is no password of anybody else, and passwords of others are not shown to the API server.
    assert_eq!(replica.log_in("alice", TOKEN).await.status, 401);
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200);

    status.store(503, Ordering::Relaxed);
    let unknown = push("ci/app", "not.yet.asked").await;
    assert_eq!(unknown.status, 503, "{unknown:?}");
    assert!(unknown.retry_after.is_some(), "{unknown:?}");
    assert_eq!(push("ci/app", TOKEN).await.status, 202, "remembered");
    let ok = "tercet_logins_total{method=\"kubernetes\",result=\"ok\"}";
    assert!(replica.metric(ok).await >= 4);
}
