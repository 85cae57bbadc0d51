//! `/v2/<name>/blobs/<digest>`: GET, HEAD (end-2), DELETE (end-10).

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::TryStreamExt;
use tercet_storage::{Digest, RepositoryName};

use super::error::{ApiError, OciCode};
use super::header::{self, CONTENT_DIGEST, value};
use super::range::{Wanted, parse_range};
use crate::core::Core;
use crate::registry;

/// Streams a blob, or the one part of it that is asked for.
pub(super) async fn get(
    core: &Arc<Core>,
    repository: &RepositoryName,
    digest: &Digest,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    let found = registry::blob_size(core, repository, digest).await?;
    let size = found.value;
    let etag = format!("\"{digest}\"");
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
    headers.insert(ETAG, value(&etag));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    header::mark(headers, found.freshness);
    if header::if_none_match(request, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let range = match wanted(method, request, &etag, size) {
        Wanted::Full => None,
        Wanted::Part(range) => Some(range),
        Wanted::Unsatisfiable => {
            let message = format!("the blob has {size} bytes");
            return Err(ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                OciCode::RangeInvalid,
                message,
            )
            .with_header(CONTENT_RANGE, value(&format!("bytes */{size}"))));
        }
    };
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    headers_of_content(&mut response, length);
    if let Some(range) = &range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let content_range = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
        response.headers_mut().insert(CONTENT_RANGE, value(&content_range));
    }
    if method != Method::HEAD {
        let served = core.metrics.blob_bytes_served.clone();
        let stream = registry::open_blob(core, digest, size, range).await?;
        *response.body_mut() =
            Body::from_stream(stream.inspect_ok(move |bytes| served.inc_by(bytes.len() as u64)));
    }
    Ok(response)
}

fn headers_of_content(response: &mut Response, length: u64) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

/// `Range` counts on GET only (RFC 9110 section 14.2), and under `If-Range` only for the same entity.
fn wanted(method: &Method, request: &HeaderMap, etag: &str, size: u64) -> Wanted {
    if method != Method::GET {
        return Wanted::Full;
    }
    if header::text(request, &IF_RANGE).is_some_and(|tag| tag != etag) {
        return Wanted::Full;
    }
    parse_range(header::text(request, &RANGE), size)
}

/// Removes a blob from the repository.
pub(super) async fn delete(
    core: &Arc<Core>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response, ApiError> {
    registry::delete_blob(core, repository, digest).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}
