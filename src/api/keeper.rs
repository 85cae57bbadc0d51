//! Pushes that come to an edge begin at a replica that keeps blobs.
//!
//! The session is opened there, so everything that follows finds its way by the session's id, as on any
//! replica.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use tercet_raft::{Leaving, MemberKind};
use tercet_storage::UploadId;

use super::error::ApiError;
use crate::config::NodeRole;
use crate::core::Core;
use crate::peer::{self, ForwardError, Forwarded, Peer};

/// What became of a request.
pub(super) enum Handled {
    /// Another replica has answered it.
    Elsewhere(Response),
    /// It is for this replica to answer.
    NotYet(Request),
}

/// Passes the opening of an upload on, if this replica is an edge.
pub(super) async fn pass_on(core: &Arc<Core>, request: Request) -> Result<Handled, ApiError> {
    let forwarded = request.extensions().get::<Forwarded>().is_some();
    if core.config.node.role != NodeRole::Edge || forwarded {
        return Ok(Handled::NotYet(request));
    }
    // Before a byte of the body: whoever takes it needs a leader too.
    core.consensus
        .write_barrier()
        .await
        .map_err(|error| ApiError::unavailable(error.to_string()))?;
    let mut request = request;
    let mut last = "there is none".to_owned();
    for keeper in keepers(core) {
        match core.peers.forward(&keeper, request).await {
            Ok(response) => return Ok(Handled::Elsewhere(response)),
            Err(ForwardError::NotDelivered { request: Some(back), reason, .. }) => {
                last = format!("{}: {reason}", keeper.name);
                request = *back;
            }
            Err(error) => return Err(ApiError::unavailable(error.to_string())),
        }
    }
    Err(ApiError::unavailable(format!("no replica that keeps blobs takes this upload: {last}")))
}

/// Those that keep blobs, in an order that differs from upload to upload.
fn keepers(core: &Core) -> Vec<Peer> {
    let own = core.consensus.identity().node_id;
    let members = core.consensus.members();
    let keepers: Vec<Peer> = members
        .iter()
        .filter(|member| member.node_id != own && member.kind == MemberKind::Voter)
        .filter(|member| member.leaving == Leaving::No)
        .map(Peer::from)
        .collect();
    let dice = UploadId::new(own).to_string();
    core.peers.likeliest_first(peer::preference(&keepers, dice.as_bytes()))
}
