//! Request bodies: streamed on, or read within a bound.

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};

use super::error::{ApiError, OciCode};
use super::header::text;
use super::range::parse_content_range;
use super::route::Shown;
use crate::registry::{Chunk, ChunkBody, RegistryError};

/// Announced bytes; the server has checked that the header agrees with the framing.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok())
}

/// A body that is streamed on as it comes.
pub(super) fn streamed(request: Request) -> ChunkBody {
    let length = length(request.headers());
    let stream = request.into_body().into_data_stream().map_err(broken).boxed();
    ChunkBody { stream, length }
}

/// The use cases know no HTTP: to them, a client that was too slow is a time-out.
fn broken(error: axum::Error) -> std::io::Error {
    if too_slow(&error) {
        return std::io::Error::new(std::io::ErrorKind::TimedOut, error);
    }
    std::io::Error::other(error)
}

fn too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.is::<crate::server::BodyTooSlow>())
}

/// A chunk with its place.
pub(super) fn chunk(request: Request) -> Result<Chunk, ApiError> {
    let range = match request.headers().get(CONTENT_RANGE) {
        None => None,
        Some(header) => {
            let header = header.to_str().unwrap_or_default();
            Some(parse_content_range(header).ok_or_else(|| {
                ApiError::invalid(
                    OciCode::BlobUploadInvalid,
                    format!("Content-Range {}: has to be <first byte>-<last byte>", Shown(header)),
                )
            })?)
        }
    };
    Ok(Chunk { body: streamed(request), range })
}

/// Reads all of a body of up to `bytes_max` bytes; memory grows with what comes, not with what is
/// announced.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Vec<u8>, ApiError> {
    let too_large = || ApiError::manifest_too_large(bytes_max);
    if length(headers).is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::new();
    while let Some(more) = stream.next().await {
        let more: Bytes = more.map_err(|error| {
            let received = bytes.len() as u64;
            if too_slow(&error) {
                return RegistryError::BodyTooSlow { received };
            }
            RegistryError::BodyBroken { received, reason: error.to_string() }
        })?;
        if bytes.len() + more.len() > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use axum::http::HeaderValue;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let headers = HeaderMap::new();
        assert_eq!(read(&headers, Body::from("1234"), 4).await.unwrap(), b"1234");
        let refused = read(&headers, Body::from("12345"), 4).await.unwrap_err();
        assert_eq!(refused.status.as_u16(), 413);
    }

    #[tokio::test]
    async fn an_announced_length_is_refused_before_the_body_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(&headers, never, 4).await.unwrap_err().status.as_u16(), 413);
    }
}
