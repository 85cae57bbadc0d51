//! How a refusal looks: a status and `{"code", "message", "hint"}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tercet_raft::ProposeError;
use tercet_storage::StorageError;

/// Something that is not done, in the words of the operator who asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminError {
    status: StatusCode,
    body: AdminErrorBody,
}

/// The JSON of an [`AdminError`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminErrorBody {
    /// For programs: `not_found`, `refused`, `unavailable`, `conflict`, `bad_request`, `internal`, or an
    /// error code of the documentation such as `TERCET-M03`.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do about it; empty if that is plain.
    #[serde(default)]
    pub hint: String,
}

impl AdminError {
    /// With a status and a code of one's own.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let body =
            AdminErrorBody { code: code.to_owned(), message: message.into(), hint: String::new() };
        Self { status, body }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 404: what it names is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409: it collides with something that goes on, or that has changed meanwhile.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 403: it would do harm, and is not done.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "refused", message)
    }

    /// 503: not at this moment, such as without a leader.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 500: the disk, or a defect.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = hint.into();
        self
    }

    /// What happened.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.body.message
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self.body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // For the audit log.
        response.extensions_mut().insert(self.body);
        response
    }
}

impl From<ProposeError> for AdminError {
    fn from(error: ProposeError) -> Self {
        let message = error.to_string();
        match error {
            ProposeError::Unknown(_) => Self::unavailable(message)
                .hint("it may have been done: look, and ask again if it was not"),
            _ => Self::unavailable(message),
        }
    }
}

impl From<StorageError> for AdminError {
    fn from(error: StorageError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<std::io::Error> for AdminError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}
