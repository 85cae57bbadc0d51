//! Raft's messages.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tercet_raft::{RpcError, RpcKind};

use super::PeerState;
use super::gate::Refusal;
use crate::peer::stall::no_longer_than;

/// No sender waits longer for the answer to a message.
const RPC_DEADLINE: Duration = Duration::from_secs(30);
/// The sender of a snapshot reads files; longer than this means that it is gone.
const SNAPSHOT_STALL: Duration = Duration::from_secs(30);

pub(super) async fn rpc(
    State(state): State<PeerState>,
    Path(kind): Path<String>,
    body: Bytes,
) -> Result<Bytes, Refusal> {
    let kind: RpcKind = kind.parse().map_err(|why| Refusal::new(StatusCode::NOT_FOUND, why))?;
    let consensus = state.inner.consensus.get().ok_or_else(Refusal::starting)?;
    match tokio::time::timeout(RPC_DEADLINE, consensus.handle_rpc(kind, body)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("{kind} took longer than {RPC_DEADLINE:?}"),
        )),
    }
}

pub(super) async fn snapshot(State(state): State<PeerState>, body: Body) -> Result<Bytes, Refusal> {
    let consensus = state.inner.consensus.get().ok_or_else(Refusal::starting)?;
    let received = body.into_data_stream().map_err(io::Error::other);
    let stream = no_longer_than(received.boxed(), SNAPSHOT_STALL, |waited| {
        io::Error::new(io::ErrorKind::TimedOut, format!("nothing for {waited:?}"))
    });
    Ok(consensus.handle_snapshot(stream.boxed()).await?)
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        let status = match &error {
            RpcError::Malformed { .. } => StatusCode::BAD_REQUEST,
            RpcError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            RpcError::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, error.to_string())
    }
}
