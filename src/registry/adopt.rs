//! Sessions whose serving replica is gone: another holder goes on with its own copy.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tercet_raft::NodeId;
use tercet_storage::{StorageError, UploadFile, UploadId};

use super::error::RegistryError;
use super::holders;
use super::session::Session;
use crate::core::Core;
use crate::peer::HeldError;

/// What one replica has of an upload session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    /// It answers for the session.
    pub(crate) serving: bool,
    /// Bytes it has.
    pub(crate) offset: u64,
}

/// The session, if this replica serves it already.
pub(crate) fn served_here(core: &Core, id: &UploadId) -> Option<Arc<Session>> {
    core.uploads.get(id)
}

/// What this replica has of a session, served or not.
pub(crate) async fn status_here(
    core: &Core,
    id: &UploadId,
) -> Result<Option<SessionStatus>, RegistryError> {
    if let Some(session) = core.uploads.get(id) {
        return Ok(Some(SessionStatus { serving: true, offset: session.offset() }));
    }
    let copy = core.held_sessions.info(id).await?;
    Ok(copy.map(|copy| SessionStatus { serving: false, offset: copy.offset }))
}

/// Which of several copies goes on: one that is served already before one that is not, then the one
/// with the most bytes, then the lowest node id. Every replica that sees the same copies chooses the
/// same one.
pub(crate) fn choose(copies: &[(NodeId, SessionStatus)]) -> Option<NodeId> {
    copies
        .iter()
        .max_by_key(|(node_id, status)| (status.serving, status.offset, Reverse(*node_id)))
        .map(|(node_id, _)| *node_id)
}

/// The session out of this replica's own copy, which it serves from now on. `None` if it has none.
pub(crate) async fn serve_here(
    core: &Arc<Core>,
    id: &UploadId,
) -> Result<Option<Arc<Session>>, RegistryError> {
    let (core_there, id) = (Arc::clone(core), *id);
    super::run::to_the_end(core, "upload-adopt", async move { adopt(&core_there, &id).await })
        .await?
}

async fn adopt(core: &Core, id: &UploadId) -> Result<Option<Arc<Session>>, RegistryError> {
    let _one_at_a_time = core.uploads.adopting(id).await?;
    if let Some(session) = core.uploads.get(id) {
        return Ok(Some(session));
    }
    let permit = core.uploads.permit()?;
    let Some(file) = take_copy(core, id).await? else { return Ok(None) };
    if id.owner() != core.consensus.identity().node_id {
        tracing::info!(%id, offset = file.offset(), "adopted an upload session of a replica that is gone");
    }
    let replicas = holders::open_replicas(core, &file).await;
    let session = Session::new(file, replicas, permit);
    core.uploads.insert(Arc::clone(&session));
    core.uploads.gauge(&core.metrics);
    Ok(Some(session))
}

/// This replica's own file after a restart, or the copy that it holds for another.
async fn take_copy(core: &Core, id: &UploadId) -> Result<Option<UploadFile>, RegistryError> {
    if id.owner() == core.consensus.identity().node_id {
        return Ok(core.blobs.open_upload(id).await?);
    }
    match core.held_sessions.take(id).await {
        Ok(file) => Ok(file),
        Err(HeldError::Storage(error)) => Err(error.into()),
        Err(HeldError::Busy(id)) => Err(StorageError::UploadBusy(id).into()),
        Err(error) => Err(RegistryError::Unavailable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn copy(node_id: NodeId, serving: bool, offset: u64) -> (NodeId, SessionStatus) {
        (node_id, SessionStatus { serving, offset })
    }

    #[test]
    fn the_longest_copy_wins_and_ties_go_to_the_lowest_id() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[copy(3, false, 10), copy(1, false, 20), copy(2, false, 20)]), Some(1));
    }

    #[test]
    fn who_serves_already_goes_on() {
        // A restarted owner with more bytes on disk must not take back what another took over.
        assert_eq!(choose(&[copy(1, false, 30), copy(2, true, 20)]), Some(2));
    }
}
