//! Which other replicas hold what is being pushed through this one, and whether they are enough.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use tercet_raft::{MemberKind, NodeId};
use tercet_storage::planted::{PlantedBug, is_planted};
use tercet_storage::{Digest, UploadFile, UploadId};

use super::error::RegistryError;
use crate::core::Core;
use crate::peer::{self, Claim, Peer, SessionReplicas, SessionReplicasOptions};

/// How many durable copies an acknowledged push needs.
pub(super) fn write_quorum(core: &Core) -> usize {
    let members = members(core);
    let candidates = members.iter().filter(|member| peer::is_candidate(member)).count();
    // One that is about to leave still counts: the copies that are asked for must not become fewer by a mark.
    let keepers = members.iter().filter(|member| member.kind == MemberKind::Voter).count();
    // Where somebody was removed, the cluster is as small as an operator wants it to be.
    let reduced = matches!(core.consensus.read(|meta| meta.any_removed()), Ok(Ok(true)));
    let listed = core.config.initial_members();
    let edges = members
        .iter()
        .filter(|member| member.kind == MemberKind::Edge)
        .filter(|member| listed.iter().any(|entry| entry.name == member.name))
        .count();
    let configured = if reduced { keepers } else { listed.len().saturating_sub(edges) };
    let quorum = peer::write_quorum(core.config.cluster.replication_factor, candidates, configured);
    if is_planted(PlantedBug::AckTooEarly) { quorum.saturating_sub(1) } else { quorum }
}

/// Begins copies of a session on the other replicas of its placement. The digest is unknown until the
/// end, so the session's id decides; repair moves copies to where the digest wants them later.
pub(super) async fn open_replicas(core: &Core, file: &UploadFile) -> SessionReplicas {
    SessionReplicas::open(SessionReplicasOptions {
        peers: core.peers.clone(),
        workers: core.workers.clone(),
        metrics: Arc::clone(&core.metrics),
        claim: Claim { id: *file.id(), fence: file.fence() },
        repository: file.repository().clone(),
        algorithm: file.algorithm(),
        offset: file.offset(),
        holders: of_session(core, file.id()),
    })
    .await
}

/// The other replicas that should hold a session.
fn of_session(core: &Core, id: &UploadId) -> Vec<Peer> {
    peer::companions(
        &members(core),
        core.config.cluster.replication_factor,
        id.to_string().as_bytes(),
        core.consensus.identity().node_id,
    )
}

fn members(core: &Core) -> Vec<Peer> {
    core.consensus.members().iter().map(Peer::from).collect()
}

/// Makes sure that a blob which is published here is durable on a write quorum: what the holders of
/// the session did not acknowledge is pushed whole to whoever takes it. `elsewhere` are the other
/// replicas that have published it since `since`.
///
/// No replica knows the blob before it is committed, and each removes files that nobody knows once they
/// are old. So copies count only while they are young, and the one here is made young again.
pub(super) async fn reach_write_quorum(
    core: &Core,
    digest: &Digest,
    size: u64,
    elsewhere: &[NodeId],
    since: Instant,
) -> Result<(), RegistryError> {
    renew_own(core, digest, size).await?;
    let needed = write_quorum(core);
    // A copy on a replica that is about to leave, or that keeps what it likes, promises nothing.
    let members = members(core);
    let counts = |id: &NodeId| {
        members.iter().any(|member| member.node_id == *id && peer::is_candidate(member))
    };
    let mut have: BTreeSet<NodeId> = BTreeSet::from([core.consensus.identity().node_id]);
    if since.elapsed() < core.config.gc.publish_grace() / 2 {
        have.extend(elsewhere);
    }
    have.retain(counts);
    if have.len() >= needed {
        return Ok(());
    }
    let made = peer::ensure_copies(core, digest, size, have, needed).await;
    let copies = made.durable;
    if copies >= needed {
        if !elsewhere.is_empty() && since.elapsed() >= core.config.gc.publish_grace() {
            return Err(RegistryError::Unavailable(format!(
                "copying blob {digest} took too long for the first copies of it to count; send the PUT again"
            )));
        }
        // To copy it may have taken long.
        return renew_own(core, digest, size).await;
    }
    if copies + made.without_room >= needed {
        return Err(RegistryError::ClusterFull(format!(
            "blob {digest} is durable on {copies} replicas, {needed} are needed, and {} have no room for it",
            made.without_room
        )));
    }
    Err(RegistryError::Unavailable(format!(
        "blob {digest} is durable on {copies} replicas, {needed} are needed"
    )))
}

/// Makes the copy here young again.
async fn renew_own(core: &Core, digest: &Digest, size: u64) -> Result<(), RegistryError> {
    // It was published a moment ago, or by an earlier attempt: a reader may have found it damaged since.
    if core.blobs.renew(digest).await? == Some(size) {
        return Ok(());
    }
    Err(RegistryError::Unavailable(format!(
        "blob {digest} is not on this replica's disk any more; push it again"
    )))
}

/// Removes the copies of a session that its links have lost touch with, as far as their replicas
/// answer. The rest is left to their reapers.
pub(super) fn forget_lost_copies(core: &Arc<Core>, claim: Claim, linked: Vec<Peer>) {
    let lost: Vec<Peer> =
        of_session(core, &claim.id).into_iter().filter(|peer| !linked.contains(peer)).collect();
    if lost.is_empty() {
        return;
    }
    let peers = core.peers.clone();
    core.workers.spawn("session-cleanup", move |token| async move {
        let deletions = join_all(lost.iter().map(|peer| peers.delete_session(peer, &claim)));
        // A replica that is gone cleans up by itself when it is back.
        let _ = token.run_until_cancelled(deletions).await;
    });
}
