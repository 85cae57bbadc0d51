//! Who may ask, and how a refusal looks.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tercet_storage::StorageError;

use super::PeerState;
use crate::peer::held::HeldError;
use crate::peer::wire::{CLUSTER_HEADER, NOT_DELIVERED_HEADER, OffsetAnswer, TARGET_HEADER};

/// A request that is not carried out: status and a sentence.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    not_delivered: Option<NotDelivered>,
}

/// Says in the answer that nothing has seen the request, so that it may be done elsewhere.
#[derive(Debug)]
struct NotDelivered;

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), not_delivered: None }
    }

    pub(super) fn bad_request(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }

    /// What is needed for an answer is not there yet.
    pub(super) fn starting() -> Self {
        Self::at_the_gate(StatusCode::SERVICE_UNAVAILABLE, "this replica is starting")
    }

    pub(super) fn busy(message: &str) -> Self {
        Self::at_the_gate(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    fn at_the_gate(status: StatusCode, message: impl Into<String>) -> Self {
        Self { not_delivered: Some(NotDelivered), ..Self::new(status, message) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.message).into_response();
        if self.not_delivered.is_some() {
            response.headers_mut().insert(NOT_DELIVERED_HEADER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        let status = match &error {
            error if error.is_no_space() => StatusCode::INSUFFICIENT_STORAGE,
            StorageError::DigestMismatch { .. } | StorageError::SizeMismatch { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            StorageError::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            // It was moved away: this replica does not have the blob.
            StorageError::CorruptBlob { .. } => StatusCode::NOT_FOUND,
            StorageError::UploadBusy(_) | StorageError::UploadExists(_) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<HeldError> for Refusal {
    fn from(error: HeldError) -> Self {
        let message = error.to_string();
        match error {
            HeldError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, message),
            HeldError::Busy(_) | HeldError::Own(_) => Self::new(StatusCode::CONFLICT, message),
            HeldError::Offset { offset } => {
                let body = serde_json::to_string(&OffsetAnswer { offset }).unwrap_or(message);
                Self::new(StatusCode::RANGE_NOT_SATISFIABLE, body)
            }
            HeldError::TakenOver(_) => Self::new(StatusCode::PRECONDITION_FAILED, message),
            HeldError::TooMany => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
            HeldError::Cut { .. } => Self::new(StatusCode::BAD_REQUEST, message),
            HeldError::Storage(error) => error.into(),
        }
    }
}

/// Lets through what is meant for this replica of this cluster. After a replacement an address may
/// belong to another node, and two clusters may be configured with one address.
pub(super) async fn check(
    State(state): State<PeerState>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let path = request.uri().path();
    // Before a replica has a cluster, it can be asked who it is and told where it belongs.
    if !matches!(path, "/peer/hello" | "/peer/invite") {
        admit(&state, path, request.headers())?;
    }
    Ok(next.run(request).await)
}

fn admit(state: &PeerState, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let hello = state.inner.hello.load();
    let (Some(cluster_id), Some(node_id)) = (&hello.cluster_id, hello.node_id) else {
        return Err(Refusal::at_the_gate(
            StatusCode::SERVICE_UNAVAILABLE,
            "this replica has no identity yet: it is looking for its cluster",
        ));
    };
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match text(CLUSTER_HEADER) {
        Some(sender) if sender == cluster_id => {}
        Some(sender) => {
            return Err(Refusal::at_the_gate(
                StatusCode::CONFLICT,
                format!("{} belongs to cluster {cluster_id}, not to {sender}", hello.name),
            ));
        }
        // One who asks to be let in may not be a member yet.
        None if path == "/raft/join" => {}
        None => {
            return Err(Refusal::at_the_gate(
                StatusCode::CONFLICT,
                format!("the request names no cluster (header {CLUSTER_HEADER})"),
            ));
        }
    }
    match text(TARGET_HEADER) {
        Some(target) if target != node_id.to_string() => Err(Refusal::at_the_gate(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this is node {node_id} ({}), not {target}", hello.name),
        )),
        _ => Ok(()),
    }
}
