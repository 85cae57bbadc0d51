//! Copies of the others' upload sessions.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use tercet_storage::{Digest, Fence, UploadId};

use super::PeerState;
use super::gate::Refusal;
use crate::peer::claim::Claim;
use crate::peer::held::HeldError;
use crate::peer::wire::{
    OffsetAnswer, SessionAppend, SessionCreate, SessionDelete, SessionFinish, SessionInfo,
    parse_algorithm,
};

pub(super) async fn create(
    State(state): State<PeerState>,
    Path(id): Path<String>,
    Query(wanted): Query<SessionCreate>,
) -> Result<StatusCode, Refusal> {
    let algorithm = parse_algorithm(&wanted.algorithm)
        .ok_or_else(|| Refusal::bad_request(format!("algorithm `{}`", wanted.algorithm)))?;
    let claim = claim(&id, wanted.epoch, wanted.server)?;
    state.inner.held.create(&claim, &wanted.repository, algorithm, wanted.offset).await?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn info(
    State(state): State<PeerState>,
    Path(id): Path<String>,
) -> Result<Json<SessionInfo>, Refusal> {
    let id = parse(&id)?;
    match state.inner.held.info(&id).await? {
        Some(info) => Ok(Json(info)),
        None => Err(HeldError::Unknown(id).into()),
    }
}

pub(super) async fn append(
    State(state): State<PeerState>,
    Path(id): Path<String>,
    Query(SessionAppend { offset, epoch, server }): Query<SessionAppend>,
    body: Body,
) -> Result<Json<OffsetAnswer>, Refusal> {
    // Takes no stream slot: it lasts as long as a client takes to send, and a few hundred slow clients
    // would leave none for anybody else. The number of sessions bounds it.
    let claim = claim(&id, epoch, server)?;
    let offset = state.inner.held.append(&claim, offset, body.into_data_stream()).await?;
    Ok(Json(OffsetAnswer { offset }))
}

/// `200` means: verified, fsynced, published.
pub(super) async fn finish(
    State(state): State<PeerState>,
    Path(id): Path<String>,
    Query(wanted): Query<SessionFinish>,
) -> Result<StatusCode, Refusal> {
    let digest: Digest = wanted.digest.parse().map_err(Refusal::bad_request)?;
    let claim = claim(&id, wanted.epoch, wanted.server)?;
    state.inner.held.finish(&claim, &digest, wanted.size).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn delete(
    State(state): State<PeerState>,
    Path(id): Path<String>,
    Query(SessionDelete { epoch, server }): Query<SessionDelete>,
) -> Result<StatusCode, Refusal> {
    state.inner.held.delete(&claim(&id, epoch, server)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn claim(id: &str, epoch: u64, server: u64) -> Result<Claim, Refusal> {
    Ok(Claim { id: parse(id)?, fence: Fence { epoch, server } })
}

fn parse(id: &str) -> Result<UploadId, Refusal> {
    id.parse().map_err(Refusal::bad_request)
}
