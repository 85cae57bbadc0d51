//! The one place where an error gets its HTTP status, its OCI code and its body.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, ETAG, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use tercet_storage::{StorageError, UploadId};

use super::header::{inclusive_range, value};
use crate::registry::RegistryError;

/// Seconds after which a refused client may try again: an election is over by then.
const RETRY_AFTER_SECONDS: u64 = 2;
/// Most references that the detail of one error lists.
const DETAILS_MAX: usize = 100;

/// Error codes of the distribution spec, and those that registries use beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is documented by the spec under its own name")]
pub(crate) enum OciCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    /// The spec has no code of its own for this.
    TagInvalid,
    NameUnknown,
    SizeInvalid,
    Denied,
    Unauthorized,
    Unsupported,
    TooManyRequests,
    /// As the CNCF distribution registry names it.
    RangeInvalid,
    /// As the CNCF distribution registry names it.
    PaginationNumberInvalid,
    /// As the CNCF distribution registry names it: no quorum, or shutting down.
    Unavailable,
    /// What is left.
    Unknown,
}

impl OciCode {
    /// The identifier in the body.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid | Self::TagInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Denied => "DENIED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError {
    /// The status.
    pub(crate) status: StatusCode,
    /// The code in the body.
    pub(crate) code: OciCode,
    /// For people.
    message: String,
    /// One error of the body for each; one without detail when empty.
    details: Vec<Value>,
    /// Headers that go with it.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error with a status of its own.
    pub(crate) fn new(status: StatusCode, code: OciCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), headers: Vec::new() }
    }

    /// `400`.
    pub(crate) fn invalid(code: OciCode, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The same as the answer to a read: a tag that nothing can have is one that nothing has.
    pub(crate) fn for_a_read(self) -> Self {
        match self.code {
            OciCode::TagInvalid => {
                Self::new(StatusCode::NOT_FOUND, OciCode::ManifestUnknown, self.message)
            }
            _ => self,
        }
    }

    /// `404` for a path that no endpoint has.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, OciCode::Unsupported, message)
    }

    /// `404` for an upload session.
    pub(crate) fn upload_unknown(id: &dyn fmt::Display) -> Self {
        let message = format!("upload session {id}: not known to this registry");
        Self::new(StatusCode::NOT_FOUND, OciCode::BlobUploadUnknown, message)
    }

    /// `405` with `Allow`.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            OciCode::Unsupported,
            "the endpoint does not answer this method",
        )
        .with_header(ALLOW, HeaderValue::from_static(allow))
    }

    /// `414`.
    pub(crate) fn uri_too_long(message: impl Into<String>) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, OciCode::Unsupported, message)
    }

    /// `413` for a manifest.
    pub(crate) fn manifest_too_large(bytes_max: usize) -> Self {
        let message = format!("manifests of more than {bytes_max} bytes are refused");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, OciCode::ManifestInvalid, message)
    }

    /// `401` with the challenge that says where credentials come from.
    pub(crate) fn unauthorized(message: impl Into<String>, challenge: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, OciCode::Unauthorized, message)
            .with_header(WWW_AUTHENTICATE, value(challenge))
    }

    /// `403`: known, and not allowed.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, OciCode::Denied, message)
    }

    /// `429`: too many failed log-ins.
    pub(crate) fn throttled(retry_after: Duration) -> Self {
        let message = "too many failed log-ins; try again later";
        let seconds = retry_after.as_secs().saturating_add(1);
        Self::new(StatusCode::TOO_MANY_REQUESTS, OciCode::TooManyRequests, message)
            .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// `503` with `Retry-After`.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, OciCode::Unavailable, message).retry_later()
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn with_detail(mut self, detail: Value) -> Self {
        self.details.push(detail);
        self
    }

    /// The connection ends with the answer.
    pub(crate) fn closing(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    fn retry_later(self) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        let new = |status, code| Self::new(status, code, message.clone());
        match error {
            RegistryError::RepositoryUnknown(_) => new(StatusCode::NOT_FOUND, OciCode::NameUnknown),
            RegistryError::BlobUnknown { digest, .. } => {
                new(StatusCode::NOT_FOUND, OciCode::BlobUnknown)
                    .with_detail(json!({ "digest": digest }))
            }
            RegistryError::ManifestUnknown { .. } => {
                new(StatusCode::NOT_FOUND, OciCode::ManifestUnknown)
            }
            RegistryError::UploadUnknown(_) => {
                new(StatusCode::NOT_FOUND, OciCode::BlobUploadUnknown)
            }
            RegistryError::UploadBusy(_) => {
                new(StatusCode::TOO_MANY_REQUESTS, OciCode::TooManyRequests).retry_later()
            }
            RegistryError::UploadsFull(_) => {
                new(StatusCode::TOO_MANY_REQUESTS, OciCode::TooManyRequests).retry_later()
            }
            RegistryError::OffsetMismatch { id, repository, offset, .. } => {
                new(StatusCode::RANGE_NOT_SATISFIABLE, OciCode::BlobUploadInvalid)
                    .with_header(RANGE, inclusive_range(offset))
                    .with_header(LOCATION, value(&upload_location(repository.as_str(), &id)))
            }
            RegistryError::BodyLength { .. } => new(StatusCode::BAD_REQUEST, OciCode::SizeInvalid),
            RegistryError::BodyBroken { .. } => {
                new(StatusCode::BAD_REQUEST, OciCode::BlobUploadInvalid)
            }
            RegistryError::BodyTooSlow { .. } => {
                new(StatusCode::REQUEST_TIMEOUT, OciCode::BlobUploadInvalid).closing()
            }
            RegistryError::DigestMismatch { .. } => {
                new(StatusCode::BAD_REQUEST, OciCode::DigestInvalid)
            }
            RegistryError::ManifestInvalid(_) => {
                new(StatusCode::BAD_REQUEST, OciCode::ManifestInvalid)
            }
            RegistryError::ManifestTooLarge { .. } => {
                new(StatusCode::PAYLOAD_TOO_LARGE, OciCode::ManifestInvalid)
            }
            RegistryError::MissingReferences(digests) => {
                let mut refused = new(StatusCode::NOT_FOUND, OciCode::ManifestBlobUnknown);
                refused.details = digests
                    .iter()
                    .take(DETAILS_MAX)
                    .map(|digest| json!({ "digest": digest }))
                    .collect();
                refused
            }
            RegistryError::BlobInUse { .. } => new(StatusCode::METHOD_NOT_ALLOWED, OciCode::Denied)
                .with_header(ALLOW, HeaderValue::from_static("GET, HEAD")),
            RegistryError::ConditionFailed { current } => {
                let refused = new(StatusCode::PRECONDITION_FAILED, OciCode::Denied);
                match current {
                    Some(digest) => refused.with_header(ETAG, value(&format!("\"{digest}\""))),
                    None => refused,
                }
            }
            RegistryError::TagImmutable { current, .. } => {
                new(StatusCode::CONFLICT, OciCode::Denied)
                    .with_header(ETAG, value(&format!("\"{current}\"")))
            }
            RegistryError::NoSpace(_) => {
                new(StatusCode::INSUFFICIENT_STORAGE, OciCode::Denied).retry_later()
            }
            RegistryError::ClusterFull(why) => {
                tracing::warn!(%why, "a write is refused for want of space");
                // Paths of this machine are for its log.
                Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    OciCode::Denied,
                    "the registry's disks are too full; pulls go on, pushes work again when the operator has made room",
                )
                .retry_later()
            }
            RegistryError::Unavailable(_) => {
                new(StatusCode::SERVICE_UNAVAILABLE, OciCode::Unavailable).retry_later()
            }
            RegistryError::Refused(_) => new(StatusCode::FORBIDDEN, OciCode::Denied),
            RegistryError::Storage(cause) => {
                tracing::error!(error = message, "request failed");
                // Paths of this machine are for its log.
                let said = "the replica could not read or write its storage; its log says why";
                match cause {
                    // A disk that fails is this replica's own: the next try may meet another one.
                    StorageError::Io { .. } => {
                        Self::new(StatusCode::SERVICE_UNAVAILABLE, OciCode::Unavailable, said)
                            .retry_later()
                    }
                    _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, OciCode::Unknown, said),
                }
            }
        }
    }
}

/// The path of an upload session.
pub(crate) fn upload_location(repository: &str, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

#[derive(Serialize)]
struct OneError<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a Value>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let one = |detail| OneError { code: self.code.as_str(), message: &self.message, detail };
        let errors: Vec<_> = if self.details.is_empty() {
            vec![one(None)]
        } else {
            self.details.iter().map(|detail| one(Some(detail))).collect()
        };
        let body = json!({ "errors": errors }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use axum::http::HeaderMap;
    use tercet_storage::{Algorithm, Digest};

    async fn body(error: ApiError) -> (StatusCode, HeaderMap, Value) {
        let (parts, body) = error.into_response().into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn every_missing_reference_is_one_error() {
        let digests =
            vec![Digest::of(Algorithm::Sha256, b"a"), Digest::of(Algorithm::Sha256, b"b")];
        let (status, _, body) =
            body(RegistryError::MissingReferences(digests.clone()).into()).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(body["errors"][index]["code"], "MANIFEST_BLOB_UNKNOWN");
            assert_eq!(body["errors"][index]["detail"]["digest"], digest.to_string());
        }
    }

    #[tokio::test]
    async fn no_quorum_says_when_to_come_back() {
        let (status, headers, body) =
            body(RegistryError::Unavailable("no leader".to_owned()).into()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(headers.contains_key(RETRY_AFTER));
        assert_eq!(body["errors"][0]["code"], "UNAVAILABLE");
    }

    #[tokio::test]
    async fn a_failed_condition_tells_the_current_digest() {
        let digest = Digest::of(Algorithm::Sha256, b"a");
        let (status, headers, _) =
            body(RegistryError::ConditionFailed { current: Some(digest.clone()) }.into()).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED);
        assert_eq!(headers[ETAG], format!("\"{digest}\""));
    }
}
