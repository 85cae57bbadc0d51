//! Doors for the fuzz targets in `chaos/fuzz`: what reads a peer's text, and nothing else.
//!
//! No interface: it changes with the parsers behind it. Raft's own messages are read in `tercet-raft`.

use std::ops::Range;

use axum::extract::Query;
use axum::http::Uri;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tercet_raft::Hello;

use crate::peer::wire::{
    BlobPush, OffsetAnswer, PeerStatus, SessionAppend, SessionCreate, SessionFinish, SessionInfo,
    parse_algorithm,
};

/// Reads bytes as every JSON body that a replica takes from another one; answers what those that were
/// accepted look like when they are written again.
#[must_use]
pub fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
    [
        body::<Hello>(bytes),
        body::<PeerStatus>(bytes),
        body::<SessionInfo>(bytes),
        body::<OffsetAnswer>(bytes),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn body<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Vec<u8>> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&read).ok()
}

/// Reads a request's query as that of every route of the peer listener; answers how many accept it.
#[must_use]
pub fn queries(raw: &str) -> usize {
    let Ok(uri) = format!("http://peer/?{raw}").parse::<Uri>() else { return 0 };
    let create = Query::<SessionCreate>::try_from_uri(&uri)
        .is_ok_and(|wanted| parse_algorithm(&wanted.algorithm).is_some());
    [
        create,
        Query::<SessionAppend>::try_from_uri(&uri).is_ok(),
        Query::<SessionFinish>::try_from_uri(&uri).is_ok(),
        Query::<BlobPush>::try_from_uri(&uri).is_ok(),
    ]
    .into_iter()
    .filter(|accepted| *accepted)
    .count()
}

/// What a peer's `Range` asks for.
#[must_use]
pub fn range(value: &str) -> Option<Range<u64>> {
    super::blobs::parse_range(value).ok()
}
