//! The listener of the admission webhook. This version answers probes on it and decides nothing.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};

use crate::ops::router::{OpsState, probes};

/// The router of the webhook listener.
pub fn router(state: Arc<OpsState>) -> Router {
    probes().with_state(state).fallback(undecided)
}

/// An API server that is pointed here already gets an error, and its `failurePolicy` decides. Any
/// well-formed review would be a decision that nobody made.
async fn undecided() -> Response {
    let message =
        "this version of Tercet reviews no admission: it decides nothing, here or anywhere";
    (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": message }))).into_response()
}
