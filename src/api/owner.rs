//! Which replica answers for an upload session, and the way there.
//!
//! The replica that opened a session serves it for as long as it lives. When it does not answer, or has
//! restarted while another went on, the best copy decides (see [`registry::choose`]).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use tercet_storage::UploadId;

use super::error::ApiError;
use crate::core::Core;
use crate::peer::{ForwardError, Forwarded, Peer};
use crate::registry::{self, RegistryError, Session, SessionStatus};

/// Between replicas only: what one of them has of a session. No repository name begins like this.
const STATUS_PREFIX: &str = "/_tercet/uploads/";
/// Longest wait for what another replica has; one that is slower counts as gone.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);
/// Largest such answer, in bytes.
const STATUS_BYTES_MAX: usize = 4 * 1024;
/// How often a request is handed on anew when the replica that should take it is gone.
const HANDOVERS_MAX: usize = 3;

/// Where a request on a session goes.
pub(super) enum Place {
    /// Here.
    Here(Arc<Session>),
    /// It was answered elsewhere.
    Answered(Response),
}

/// Finds who serves the session: this replica, with the request handed back, or another one, which
/// then has answered it.
pub(super) async fn locate(
    core: &Arc<Core>,
    id: &UploadId,
    mut request: Request,
) -> Result<(Place, Option<Request>), ApiError> {
    if let Some(session) = registry::served_here(core, id) {
        return Ok((Place::Here(session), Some(request)));
    }
    if request.extensions().get::<Forwarded>().is_some() {
        // The other replica has asked around: this one's copy is the one to go on with.
        let session =
            registry::serve_here(core, id).await?.ok_or(RegistryError::UploadUnknown(*id))?;
        return Ok((Place::Here(session), Some(request)));
    }
    let mut gone = Vec::new();
    for _ in 0..HANDOVERS_MAX {
        let Some(peer) = choose(core, id, &gone).await? else {
            let session =
                registry::serve_here(core, id).await?.ok_or(RegistryError::UploadUnknown(*id))?;
            return Ok((Place::Here(session), Some(request)));
        };
        match core.peers.forward(&peer, request).await {
            Ok(response) => return Ok((Place::Answered(response), None)),
            Err(ForwardError::NotDelivered { request: Some(back), reason, .. }) => {
                tracing::info!(%id, peer = peer.name, reason, "upload session: looking for another holder");
                gone.push(peer.node_id);
                request = *back;
            }
            Err(error) => return Err(ApiError::unavailable(error.to_string())),
        }
    }
    Err(ApiError::unavailable(format!("upload session {id}: no replica takes it at this moment")))
}

/// The other replica that should answer, `None` for this one.
async fn choose(core: &Arc<Core>, id: &UploadId, gone: &[u64]) -> Result<Option<Peer>, ApiError> {
    let own = core.consensus.identity().node_id;
    let mut others: Vec<Peer> = core
        .consensus
        .members()
        .iter()
        .map(Peer::from)
        .filter(|peer| peer.node_id != own && !gone.contains(&peer.node_id))
        .collect();
    let owner =
        others.iter().position(|peer| peer.node_id == id.owner()).map(|at| others.swap_remove(at));
    let mut copies = Vec::new();
    if let Some(owner) = &owner {
        match ask(core, owner, id).await {
            // By far the most frequent case: one question.
            Some(status) if status.serving => return Ok(Some(owner.clone())),
            Some(status) => copies.push((owner.node_id, status)),
            None => {}
        }
    }
    if let Some(status) = registry::status_here(core, id).await? {
        copies.push((own, status));
    }
    let answers = join_all(others.iter().map(|peer| ask(core, peer, id))).await;
    for (peer, status) in others.iter().zip(answers) {
        copies.extend(status.map(|status| (peer.node_id, status)));
    }
    match registry::choose(&copies) {
        None => Err(RegistryError::UploadUnknown(*id).into()),
        Some(chosen) if chosen == own => Ok(None),
        Some(chosen) => Ok(others.into_iter().chain(owner).find(|peer| peer.node_id == chosen)),
    }
}

/// What `peer` has of the session; `None` also when it does not say.
async fn ask(core: &Core, peer: &Peer, id: &UploadId) -> Option<SessionStatus> {
    let request =
        Request::builder().uri(format!("{STATUS_PREFIX}{id}")).body(Body::empty()).ok()?;
    let answer = async {
        let response = core.peers.forward(peer, request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let body = axum::body::to_bytes(response.into_body(), STATUS_BYTES_MAX).await.ok()?;
        serde_json::from_slice(&body).ok()
    };
    tokio::time::timeout(STATUS_DEADLINE, answer).await.ok().flatten()
}

/// The session that another replica asks about.
pub(super) fn status_path(path: &str) -> Option<&str> {
    path.strip_prefix(STATUS_PREFIX)
}

/// Answers another replica.
pub(super) async fn answer_status(core: &Core, id: &str) -> Result<Response, ApiError> {
    let unknown = || ApiError::upload_unknown(&super::route::Shown(id));
    let parsed: UploadId = id.parse().map_err(|_| unknown())?;
    let status = registry::status_here(core, &parsed).await?.ok_or_else(unknown)?;
    Ok(Json(status).into_response())
}
