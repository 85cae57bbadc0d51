//! What only the leader can do is passed on to it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tercet_raft::Role;

use super::audit::{DoneElsewhere, REMOTE_HEADER};
use super::error::AdminError;
use super::member::BUSY;
use crate::core::Core;
use crate::peer::{ForwardError, Forwarded, Peer};
use crate::server::RemoteAddress;

/// Layer for routes whose handlers work on the leader only:
/// `.route_layer(middleware::from_fn_with_state(Arc::clone(core), admin::on_leader))`. On another replica
/// the request goes to the leader, once, and the answer streams back.
pub async fn on_leader(
    State(core): State<Arc<Core>>,
    mut request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    let leader = core.consensus.members().into_iter().find(|member| member.role == Role::Leader);
    let known = core.consensus.status().leader;
    let Some(leader) = leader.filter(|leader| known.as_ref() == Some(&leader.name)) else {
        return Err(busy("no leader is known")
            .hint("wait for an election to end; `tercet status` shows which replicas answer"));
    };
    if leader.node_id == core.consensus.identity().node_id {
        return Ok(next.run(request).await);
    }
    if request.extensions().get::<Forwarded>().is_some() {
        return Err(busy("the leader has just changed"));
    }
    if let Some(RemoteAddress(remote)) = request.extensions().get()
        && let Ok(remote) = HeaderValue::try_from(remote.to_string())
    {
        request.headers_mut().insert(REMOTE_HEADER, remote);
    }
    let request: axum::http::Request<Body> = request;
    match core.peers.administer(&Peer::from(&leader), request).await {
        Ok(mut response) => {
            response.extensions_mut().insert(DoneElsewhere);
            Ok(response.into_response())
        }
        Err(error @ ForwardError::NotDelivered { .. }) => Err(busy(&error.to_string())),
        Err(error @ ForwardError::Unknown { .. }) => {
            Err(AdminError::unavailable(error.to_string())
                .hint("it may have been done: look, and ask again if it was not"))
        }
    }
}

/// Another answer may come a moment later.
fn busy(message: &str) -> AdminError {
    AdminError::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, message)
}
