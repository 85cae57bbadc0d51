//! `/v2/<name>/blobs/<digest>`: GET, HEAD (end-2), DELETE (end-10).

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt, stream};
use tercet_storage::{Digest, RepositoryName};

use super::error::{ApiError, OciCode};
use super::header::{self, CONTENT_DIGEST, value};
use super::multipart::{Multipart, content_range};
use super::range::{Wanted, parse_range};
use crate::core::Core;
use crate::registry;

/// Blobs are bytes: what they are is said by the manifest that names them.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Streams a blob, or the parts of it that are asked for.
pub(super) async fn get(
    core: &Arc<Core>,
    repository: &RepositoryName,
    digest: &Digest,
    method: &Method,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    // A client that asks whether a blob exists is going to rely on it; one that reads it has it then.
    let found = match *method == Method::HEAD {
        true => registry::check_blob(core, repository, digest).await?,
        false => registry::blob_size(core, repository, digest).await?,
    };
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
    let wanted = wanted(method, request, &etag, size);
    if wanted == Wanted::Unsatisfiable {
        return Err(unsatisfiable(size, response.headers()));
    }
    let served = core.metrics.blob_bytes_served.clone();
    let (content_type, length, body) = match wanted {
        Wanted::Parts(parts) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let multipart = Multipart::new(digest, size, parts);
            let (content_type, length) = (multipart.content_type(), multipart.length());
            (content_type, length, multipart.open(core, digest).await?)
        }
        Wanted::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let content_range = value(&content_range(&range, size));
            response.headers_mut().insert(CONTENT_RANGE, content_range);
            let length = range.end - range.start;
            (OCTETS, length, registry::open_blob(core, digest, size, Some(range)).await?)
        }
        // A HEAD asks for the headers of everything, and opens nothing.
        _ if method == Method::HEAD => (OCTETS, size, stream::empty().boxed()),
        _ => (OCTETS, size, registry::open_blob(core, digest, size, None).await?),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() =
        Body::from_stream(body.inspect_ok(move |bytes| served.inc_by(bytes.len() as u64)));
    Ok(response)
}

/// `416` with what the answer says about the blob so far, also that it may be stale.
fn unsatisfiable(size: u64, said: &HeaderMap) -> ApiError {
    let message = format!("the blob has {size} bytes");
    let refused = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, OciCode::RangeInvalid, message)
        .with_header(CONTENT_RANGE, value(&format!("bytes */{size}")));
    said.iter()
        .fold(refused, |refused, (name, value)| refused.with_header(name.clone(), value.clone()))
}

/// `Range` counts on GET only (RFC 9110 section 14.2), and under `If-Range` only for the same entity
/// (section 13.1.5: strong comparison, so a weak tag or a date never holds).
fn wanted(method: &Method, request: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let holds = |tag: &HeaderValue| tag.as_bytes() == etag.as_bytes();
    if method != Method::GET || request.get(IF_RANGE).is_some_and(|tag| !holds(tag)) {
        return Wanted::Full;
    }
    // Two headers are no list: what they mean together is not defined.
    if request.get_all(RANGE).iter().count() > 1 {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use axum::http::header::WARNING;
    use axum::response::IntoResponse;
    use tercet_raft::Freshness;

    #[test]
    fn a_stale_416_says_that_it_is_stale() {
        let mut said = HeaderMap::new();
        said.insert(ETAG, HeaderValue::from_static("\"tag\""));
        header::mark(&mut said, Freshness::Stale);
        let answer = unsatisfiable(7, &said).into_response();
        assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(answer.headers()[WARNING], said[WARNING]);
        assert_eq!(answer.headers()[ETAG], said[ETAG]);
        assert_eq!(answer.headers()[CONTENT_RANGE], "bytes */7");
    }
}
