//! The routes of the ops listener.

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::health::{Health, Readiness};
use super::metrics::Metrics;
use super::{page, status};
use crate::core::Core;

/// What Prometheus expects.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The state behind the routes. It answers from the first moment of the process on; `core` is set
/// when the replica takes part in its cluster.
pub struct OpsState {
    /// Phase of the process.
    pub health: Arc<Health>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// The replica, once there is one.
    pub core: OnceLock<Arc<Core>>,
}

impl OpsState {
    fn readiness(&self) -> Readiness {
        let raft = self.core.get().map(|core| core.consensus.status());
        self.health.readiness(raft.as_ref())
    }
}

/// The router of the ops listener.
pub fn router(state: Arc<OpsState>) -> Router {
    probes()
        .route("/metrics", get(metrics))
        .route("/status", get(status_json))
        .route("/", get(status_page))
        .with_state(state)
}

/// What tells whether this replica lives and is ready. The webhook listener has it too.
pub(crate) fn probes() -> Router<Arc<OpsState>> {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz))
}

/// A process that fails a fsync or panics ends, so one that answers lives.
async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(state): State<Arc<OpsState>>) -> Response {
    let Readiness { ready, reason } = state.readiness();
    (code_of(ready), reason + "\n").into_response()
}

async fn metrics(State(state): State<Arc<OpsState>>) -> Response {
    if let Some(core) = state.core.get() {
        status::refresh(core);
    }
    match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status_json(State(state): State<Arc<OpsState>>) -> Response {
    match state.core.get() {
        Some(core) => Json(status::collect(core).await).into_response(),
        None => {
            let body = Json(serde_json::json!({ "error": state.readiness().reason }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn status_page(State(state): State<Arc<OpsState>>) -> Response {
    let readiness = state.readiness();
    let status = match state.core.get() {
        Some(core) => Some(status::collect(core).await),
        None => None,
    };
    let page = Html(page::render(&readiness, status.as_ref()));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    (code_of(true), [(header::CONTENT_SECURITY_POLICY, policy)], page).into_response()
}

fn code_of(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
