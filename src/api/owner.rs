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
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tercet_storage::UploadId;
use tokio::time::Instant;

use super::error::ApiError;
use crate::core::Core;
use crate::peer::{ForwardError, Forwarded, Peer};
use crate::registry::{self, RegistryError, Session, SessionStatus};

/// Between replicas only: what one of them has of a session. No repository name begins like this.
const STATUS_PREFIX: &str = "/_tercet/uploads/";
/// Behind the id: only what the replica knows by itself. Two that are both in doubt must not ask each other
/// for ever.
const LOCAL_SUFFIX: &str = "/local";
/// For those who have not answered when a majority has.
const STRAGGLERS: Duration = Duration::from_millis(200);
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
    let mut left = false;
    if let Some(session) = registry::served_here(core, id) {
        left = leave_if_behind(core, &session).await?;
        if !left {
            return Ok((Place::Here(session), Some(request)));
        }
    }
    if request.extensions().get::<Forwarded>().is_some() {
        if left {
            return Err(taken_over(id));
        }
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
        match ask(core, owner, id, "").await {
            // By far the most frequent case: one question. It has made sure that it is not behind.
            Asked::Has(status) if status.serving => return Ok(Some(owner.clone())),
            Asked::Has(status) => copies.push((owner.node_id, status)),
            Asked::HasNothing | Asked::Silent => {}
        }
    }
    if let Some(status) = registry::status_here(core, id).await? {
        copies.push((own, status));
    }
    let answers = join_all(others.iter().map(|peer| ask(core, peer, id, ""))).await;
    for (peer, asked) in others.iter().zip(answers) {
        if let Asked::Has(status) = asked {
            copies.push((peer.node_id, status));
        }
    }
    match registry::choose(&copies) {
        None => Err(RegistryError::UploadUnknown(*id).into()),
        Some(chosen) if chosen == own => Ok(None),
        Some(chosen) => Ok(others.into_iter().chain(owner).find(|peer| peer.node_id == chosen)),
    }
}

/// Whether another replica has taken over a session that this one serves; then it is left to that one.
///
/// Asked of a session with which nothing has happened for a moment: this process may have been frozen
/// meanwhile, long enough for others to give it up. A majority answers, and those who are as fast.
pub(super) async fn leave_if_behind(
    core: &Arc<Core>,
    session: &Arc<Session>,
) -> Result<bool, ApiError> {
    if session.is_confirmed() || !session.is_open() {
        return Ok(false);
    }
    let own = core.consensus.identity().node_id;
    let members: Vec<Peer> = core.consensus.members().iter().map(Peer::from).collect();
    let others = members.iter().filter(|peer| peer.node_id != own);
    let mut answers: FuturesUnordered<_> =
        others.map(|peer| ask(core, peer, &session.id, LOCAL_SUFFIX)).collect();
    let needed = members.len() / 2;
    let (mut answered, mut deadline) = (0, Instant::now() + STATUS_DEADLINE);
    while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await {
        match answer {
            Asked::Has(status) if registry::is_behind(session, &status) => {
                registry::leave(core, session).await?;
                return Ok(true);
            }
            Asked::Has(_) | Asked::HasNothing => answered += 1,
            Asked::Silent => {}
        }
        if answered >= needed {
            deadline = deadline.min(Instant::now() + STRAGGLERS);
        }
    }
    session.confirm();
    Ok(false)
}

/// The client asks for the offset and goes on from there, with whoever serves the session now.
pub(super) fn taken_over(id: &UploadId) -> ApiError {
    ApiError::unavailable(format!("upload session {id} was taken over by another replica"))
}

/// What another replica says of a session.
enum Asked {
    Has(SessionStatus),
    HasNothing,
    /// It does not answer, or cannot tell.
    Silent,
}

/// What `peer` has of the session.
async fn ask(core: &Core, peer: &Peer, id: &UploadId, suffix: &str) -> Asked {
    let uri = format!("{STATUS_PREFIX}{id}{suffix}");
    let Ok(request) = Request::builder().uri(uri).body(Body::empty()) else {
        return Asked::Silent;
    };
    let answer = async {
        let response = core.peers.forward(peer, request).await.ok()?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Some(Asked::HasNothing),
            _ => return None,
        }
        let body = axum::body::to_bytes(response.into_body(), STATUS_BYTES_MAX).await.ok()?;
        serde_json::from_slice(&body).ok().map(Asked::Has)
    };
    let answered = tokio::time::timeout(STATUS_DEADLINE, answer).await;
    answered.ok().flatten().unwrap_or(Asked::Silent)
}

/// The session that another replica asks about.
pub(super) fn status_path(path: &str) -> Option<&str> {
    path.strip_prefix(STATUS_PREFIX)
}

/// Answers another replica.
pub(super) async fn answer_status(core: &Arc<Core>, id: &str) -> Result<Response, ApiError> {
    let (id, may_ask) = match id.strip_suffix(LOCAL_SUFFIX) {
        Some(id) => (id, false),
        None => (id, true),
    };
    let unknown = || ApiError::upload_unknown(&super::route::Shown(id));
    let parsed: UploadId = id.parse().map_err(|_| unknown())?;
    if may_ask && let Some(session) = registry::served_here(core, &parsed) {
        leave_if_behind(core, &session).await?;
    }
    let status = registry::status_here(core, &parsed).await?.ok_or_else(unknown)?;
    Ok(Json(status).into_response())
}
