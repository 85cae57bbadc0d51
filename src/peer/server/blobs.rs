//! Blobs of this replica's own disk.

use std::ops::Range;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tercet_storage::Digest;

use super::PeerState;
use super::gate::Refusal;
use crate::peer::wire::BlobPush;
use crate::pieces::Pieces;

/// A peer pushes from its disk; longer than this means that it is gone.
const PUSH_STALL: Duration = Duration::from_secs(15);

pub(super) async fn head(
    State(state): State<PeerState>,
    Path(digest): Path<String>,
) -> Result<Response, Refusal> {
    let digest = parse(&digest)?;
    match state.inner.blobs.size_of(&digest).await? {
        Some(size) => Ok(([(header::CONTENT_LENGTH, size)], Body::empty()).into_response()),
        None => Err(lacking(&digest)),
    }
}

pub(super) async fn read(
    State(state): State<PeerState>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let digest = parse(&digest)?;
    let range = match headers.get(header::RANGE) {
        Some(value) => Some(parse_range(value.to_str().unwrap_or_default())?),
        None => None,
    };
    let permit = state.stream_permit()?;
    let Some(reader) = state.inner.blobs.reader(&digest, range.clone()).await? else {
        return Err(lacking(&digest));
    };
    let (size, given) = (reader.size(), reader.range());
    let length = given.end.saturating_sub(given.start);
    let stream = reader.into_stream().map(move |chunk| {
        // The place among the streams is free again when the stream is dropped.
        let _ = &permit;
        chunk
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = given.end.saturating_sub(1);
        let value = format!("bytes {}-{last}/{size}", given.start);
        let value = value.parse().map_err(Refusal::bad_request)?;
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

/// Takes a whole blob. `200` means: verified, fsynced, published.
pub(super) async fn push(
    State(state): State<PeerState>,
    Path(digest): Path<String>,
    Query(BlobPush { size }): Query<BlobPush>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let digest = parse(&digest)?;
    let _permit = state.stream_permit()?;
    let mut writer = state.inner.blobs.writer(digest.clone(), Some(size)).await?;
    let mut pieces = Pieces::of(body.into_data_stream());
    loop {
        match tokio::time::timeout(PUSH_STALL, pieces.next()).await {
            Ok(Some(Ok(piece))) => pieces.join_during(writer.append(piece)).await?,
            Ok(Some(Err(error))) => return Err(Refusal::bad_request(error)),
            Ok(None) => break,
            Err(_) => {
                let message = format!("nothing for {PUSH_STALL:?}");
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        }
    }
    writer.finish().await?;
    Ok(StatusCode::OK)
}

fn parse(digest: &str) -> Result<Digest, Refusal> {
    digest.parse().map_err(Refusal::bad_request)
}

fn lacking(digest: &Digest) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("{digest} is not on this replica"))
}

/// `bytes=first-last`, the only form that replicas send.
pub(super) fn parse_range(value: &str) -> Result<Range<u64>, Refusal> {
    let malformed = || Refusal::bad_request(format!("range `{value}` is not bytes=first-last"));
    let (first, last) = value
        .strip_prefix("bytes=")
        .and_then(|value| value.split_once('-'))
        .ok_or_else(malformed)?;
    let first: u64 = first.parse().map_err(|_| malformed())?;
    let last: u64 = last.parse().map_err(|_| malformed())?;
    match last.checked_add(1) {
        Some(end) if end > first => Ok(first..end),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-0").unwrap(), 0..1);
        assert_eq!(parse_range("bytes=5-9").unwrap(), 5..10);
        let too_far = format!("bytes=0-{}", u64::MAX);
        for bad in ["bytes=5-4", "bytes=-5", "bytes=5-", "5-9", "bytes=0-1,3-4", &too_far] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
