//! Pushes of blobs and their collection, by the rules of `src/registry`: a write quorum of durable copies that are
//! young, then the commit; and a leader that proposes to forget what nothing references.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tercet_raft::{Command, Consensus, NodeId, Outcome, Role};
use tercet_storage::Digest;
use tokio::time::Instant;

use crate::mutation::Mutation;
use crate::net::{Answer, Ask, host};
use crate::node::{Node, content_of, images, propose};
use crate::op::Told;
use crate::peer::{Peer, companions, is_candidate, placement_key, preference, write_quorum};

/// How many copies there should be.
pub(crate) const REPLICATION_FACTOR: usize = 3;
/// A file that was published in this time is not removed, and a copy that was made in half of it counts.
pub(crate) const PUBLISH_GRACE: Duration = Duration::from_secs(6);
/// How long nothing must have referenced a blob.
const COLLECT_GRACE_MS: u64 = 1_500;
const COLLECT_EVERY: Duration = Duration::from_millis(700);
const HOLDER_DEADLINE: Duration = Duration::from_millis(800);

/// Stores a blob. What the client is told is what the registry would tell.
pub(crate) async fn push(node: &Node, consensus: &Consensus, content: u8) -> Told {
    if let Err(error) = consensus.write_barrier().await {
        return Told::NotDone(error.to_string());
    }
    let (digest, size) = content_of(content);
    let began = Instant::now();
    node.publish(&digest).await;
    let own = consensus.identity().node_id;
    let members = members(consensus);
    let configured = node.world.lock().machines.len();
    let candidates = members.iter().filter(|member| is_candidate(member)).count();
    let quorum = write_quorum(REPLICATION_FACTOR, candidates, configured);
    let needed = match node.world.mutation() {
        Some(Mutation::AckTooEarly) => quorum.saturating_sub(1),
        _ => quorum,
    };
    let key = node.world.below(usize::MAX).to_le_bytes();
    let mut have: BTreeSet<NodeId> = BTreeSet::from([own]);
    have.retain(|id| members.iter().any(|member| member.node_id == *id && is_candidate(member)));
    let companions = companions(&members, REPLICATION_FACTOR, &key, own);
    copy_to(node, &companions, &digest, needed, &mut have).await;
    if have.len() < needed {
        let mut others = preference(&members, &placement_key(&digest));
        others.retain(|peer| {
            is_candidate(peer) && peer.node_id != own && !have.contains(&peer.node_id)
        });
        copy_to(node, &others, &digest, needed, &mut have).await;
    }
    if have.len() < needed || began.elapsed() > PUBLISH_GRACE / 2 {
        return Told::NotDone(format!("{} copies", have.len()));
    }
    node.publish(&digest).await;
    let Some(repository) = images() else { return Told::NotDone("no repository".to_owned()) };
    propose(node, consensus, Command::BlobCommitted { digest, size, repository }).await
}

async fn copy_to(
    node: &Node,
    peers: &[Peer],
    digest: &Digest,
    needed: usize,
    have: &mut BTreeSet<NodeId>,
) {
    let mut answers: FuturesUnordered<_> = peers
        .iter()
        .map(|peer| async move {
            let ask = Ask::PutBlob { digest: digest.clone() };
            let answer = node.net.ask(host(&peer.address), ask, HOLDER_DEADLINE).await;
            matches!(answer, Ok(Answer::Yes)).then_some(peer.node_id)
        })
        .collect();
    while have.len() < needed
        && let Some(answer) = answers.next().await
    {
        have.extend(answer);
    }
}

pub(crate) fn members(consensus: &Consensus) -> Vec<Peer> {
    consensus.members().iter().map(Peer::from).collect()
}

/// The collector: while this replica leads, it looks for what nothing references.
pub(crate) async fn collect(node: Arc<Node>) {
    let Some(consensus) = node.consensus().cloned() else { return };
    loop {
        tokio::time::sleep(COLLECT_EVERY).await;
        if consensus.status().role != Role::Leader
            || node.world.healing()
            || consensus.feature_level() < 2
            || consensus.write_barrier().await.is_err()
        {
            continue;
        }
        let now_ms = node.clock.now_ms();
        let Ok(Ok(blobs)) = consensus.read(|meta| meta.blobs(None, usize::MAX)) else { continue };
        let due: Vec<Digest> = blobs
            .into_iter()
            .filter(|(_, record)| {
                record.references == 0
                    && record
                        .unreferenced_since_ms
                        .is_some_and(|since| since.saturating_add(COLLECT_GRACE_MS) <= now_ms)
            })
            .map(|(digest, _)| digest)
            .collect();
        if due.is_empty() {
            continue;
        }
        let command = Command::CollectBlobs { digests: due, grace_ms: COLLECT_GRACE_MS };
        if let Ok(Outcome::Collected(collected)) = consensus.propose(command).await {
            node.world.lock().counts.collected += collected.len() as u64;
        }
    }
}
