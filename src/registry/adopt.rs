//! Sessions whose serving replica is gone: another holder goes on with its own copy.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tercet_raft::NodeId;
use tercet_storage::{Fence, StorageError, UploadFile, UploadId};

use super::error::RegistryError;
use super::holders;
use super::session::{Session, SessionState};
use crate::core::Core;
use crate::peer::HeldError;

/// What one replica has of an upload session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    /// It answers for the session.
    pub(crate) serving: bool,
    /// Bytes it has.
    pub(crate) offset: u64,
    /// The greatest right to the session that it has seen; the first from a version that does not say.
    #[serde(default)]
    pub(crate) fence: Fence,
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
        let (offset, fence) = (session.offset(), session.fence);
        return Ok(Some(SessionStatus { serving: true, offset, fence }));
    }
    let copy = core.held_sessions.info(id).await?;
    Ok(copy.map(|copy| SessionStatus { serving: false, offset: copy.offset, fence: copy.fence }))
}

/// Whether a replica has a greater right to a session than the one that serves it here.
pub(crate) fn is_behind(session: &Session, elsewhere: &SessionStatus) -> bool {
    elsewhere.fence > session.fence
}

/// Lets go of a session that another replica has taken over: nothing of it is served or stays here.
pub(crate) async fn leave(core: &Arc<Core>, session: &Arc<Session>) -> Result<(), RegistryError> {
    session.taken_over.cancel();
    core.uploads.remove(&session.id);
    let guard = session.lock().await?;
    let session = Arc::clone(session);
    super::run::to_the_end(core, "upload-leave", async move {
        let mut guard = guard;
        if let SessionState::Open(open) = std::mem::replace(&mut *guard, SessionState::Gone) {
            tracing::info!(id = %session.id, "an upload session was taken over by another replica while this one did not answer");
            open.leave(&session.id).await;
        }
    })
    .await?;
    core.uploads.gauge(&core.metrics);
    Ok(())
}

/// Which of several copies goes on: the one that was taken over last before older ones, one that is served
/// already before one that is not, then the one with the most bytes, then the lowest node id. Every replica
/// that sees the same copies chooses the same one.
pub(crate) fn choose(copies: &[(NodeId, SessionStatus)]) -> Option<NodeId> {
    copies
        .iter()
        .max_by_key(|(node_id, status)| {
            (status.fence, status.serving, status.offset, Reverse(*node_id))
        })
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
    let Some(mut file) = take_copy(core, id).await? else { return Ok(None) };
    // Whoever served it before, and is only frozen, is refused by every holder that learns of this.
    file.set_fence(file.fence().taken_by(core.consensus.identity().node_id)).await?;
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
        (node_id, SessionStatus { serving, offset, fence: Fence::default() })
    }

    fn taken_over(
        node_id: NodeId,
        serving: bool,
        offset: u64,
        epoch: u64,
    ) -> (NodeId, SessionStatus) {
        let fence = Fence { epoch, server: node_id };
        (node_id, SessionStatus { serving, offset, fence })
    }

    #[test]
    fn the_longest_copy_wins_and_ties_go_to_the_lowest_id() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[copy(3, false, 10), copy(1, false, 20), copy(2, false, 20)]), Some(1));
    }

    #[test]
    fn an_owner_that_was_frozen_is_not_asked_once_another_has_taken_over() {
        assert_eq!(choose(&[copy(1, true, 30), taken_over(2, true, 20, 1)]), Some(2));
        // Nor if that one is gone meanwhile, and only a holder remembers.
        assert_eq!(choose(&[copy(1, true, 30), taken_over(3, false, 20, 1)]), Some(3));
        // Of two that took over at once, one is right.
        assert_eq!(choose(&[taken_over(2, true, 9, 1), taken_over(3, true, 5, 1)]), Some(3));
    }

    #[test]
    fn an_answer_of_an_older_version_has_the_first_right() {
        let status: SessionStatus = serde_json::from_str(r#"{"serving":true,"offset":7}"#).unwrap();
        assert_eq!((1, status), copy(1, true, 7));
    }

    #[test]
    fn who_serves_already_goes_on() {
        // A restarted owner with more bytes on disk must not take back what another took over.
        assert_eq!(choose(&[copy(1, false, 30), copy(2, true, 20)]), Some(2));
    }
}
