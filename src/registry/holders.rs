//! Which other replicas hold what is being pushed through this one, and whether they are enough.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tercet_raft::NodeId;
use tercet_storage::{Digest, UploadFile, UploadId};

use super::error::RegistryError;
use crate::core::Core;
use crate::peer::{self, Peer, SessionReplicas, SessionReplicasOptions};

/// How many durable copies an acknowledged push needs.
pub(super) fn write_quorum(core: &Core) -> usize {
    peer::write_quorum(
        core.config.cluster.replication_factor,
        core.consensus.members().len(),
        core.config.initial_members().len(),
    )
}

/// Begins copies of a session on the other replicas of its placement. The digest is unknown until the
/// end, so the session's id decides; repair moves copies to where the digest wants them later.
pub(super) async fn open_replicas(core: &Core, file: &UploadFile) -> SessionReplicas {
    SessionReplicas::open(SessionReplicasOptions {
        peers: core.peers.clone(),
        workers: core.workers.clone(),
        metrics: Arc::clone(&core.metrics),
        id: *file.id(),
        repository: file.repository().clone(),
        algorithm: file.algorithm(),
        offset: file.offset(),
        holders: of_session(core, file.id()),
    })
    .await
}

/// The other replicas that should hold a session.
fn of_session(core: &Core, id: &UploadId) -> Vec<Peer> {
    let own = core.consensus.identity().node_id;
    let members: Vec<Peer> = core.consensus.members().iter().map(Peer::from).collect();
    let mut ranked = peer::rank(&members, id.to_string().as_bytes());
    ranked.retain(|peer| peer.node_id != own);
    ranked.truncate(core.config.cluster.replication_factor.saturating_sub(1));
    ranked
}

/// Makes sure that a blob which is published here is durable on a write quorum: what the holders of
/// the session did not acknowledge is pushed whole to whoever takes it. `elsewhere` are the other
/// replicas that have it.
pub(super) async fn reach_write_quorum(
    core: &Core,
    digest: &Digest,
    size: u64,
    elsewhere: &[NodeId],
) -> Result<(), RegistryError> {
    // It was published a moment ago, or by an earlier attempt: a reader may have found it damaged since.
    if core.blobs.size_of(digest).await? != Some(size) {
        return Err(RegistryError::Unavailable(format!(
            "blob {digest} is not on this replica's disk any more; push it again"
        )));
    }
    let needed = write_quorum(core);
    let mut have = BTreeSet::from([core.consensus.identity().node_id]);
    have.extend(elsewhere);
    let mut copies = have.len();
    if copies < needed {
        copies = peer::ensure_copies(core, digest, size, have, needed).await;
    }
    if copies >= needed {
        return Ok(());
    }
    Err(RegistryError::Unavailable(format!(
        "blob {digest} is durable on {copies} replicas, {needed} are needed"
    )))
}

/// Removes the copies of a session that its links have lost touch with, as far as their replicas
/// answer. The rest is left to their reapers.
pub(super) fn forget_lost_copies(core: &Arc<Core>, id: UploadId, linked: Vec<Peer>) {
    let lost: Vec<Peer> =
        of_session(core, &id).into_iter().filter(|peer| !linked.contains(peer)).collect();
    if lost.is_empty() {
        return;
    }
    let peers = core.peers.clone();
    core.workers.spawn("session-cleanup", move |token| async move {
        let deletions = join_all(lost.iter().map(|peer| peers.delete_session(peer, &id)));
        // A replica that is gone cleans up by itself when it is back.
        let _ = token.run_until_cancelled(deletions).await;
    });
}
