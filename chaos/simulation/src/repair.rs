//! What a replica does about its blobs without being asked: it fetches what belongs here and is not, and removes
//! what the group has forgotten. The backlog and the placement are the registry's own.

use std::sync::Arc;
use std::time::Duration;

use tercet_raft::{Collected, Consensus, Freshness};
use tercet_storage::Digest;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::mutation::Mutation;
use crate::net::{Answer, Ask, host};
use crate::node::Node;
use crate::peer::backlog::{Backlog, Setback};
use crate::peer::{Peer, is_placed_on, placement_key, preference};
use crate::push::{PUBLISH_GRACE, REPLICATION_FACTOR, members};
use crate::world::now;

const TICK: Duration = Duration::from_millis(250);
const COMPARE_EVERY: Duration = Duration::from_secs(5);
const FETCH_DEADLINE: Duration = Duration::from_millis(800);

/// Keeps what belongs here.
pub(crate) async fn fetch(node: Arc<Node>, mut committed: mpsc::Receiver<(Digest, u64)>) {
    let Some(consensus) = node.consensus().cloned() else { return };
    let own = consensus.identity().node_id;
    let mut backlog = Backlog::default();
    let mut compared_with: Vec<Peer> = Vec::new();
    let mut compare_at = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        let members = members(&consensus);
        let belongs_here = |digest: &Digest| {
            is_placed_on(&members, REPLICATION_FACTOR, &placement_key(digest), own)
        };
        while let Ok((digest, size)) = committed.try_recv() {
            if belongs_here(&digest) && !node.blobs().has(&digest) {
                backlog.note(digest, size, Instant::now());
            }
        }
        let moved = members != compared_with;
        if moved {
            backlog.hurry(Instant::now());
            backlog.retain(belongs_here);
        }
        if consensus.take_rescan() || moved || compare_at <= Instant::now() {
            compare_at = Instant::now() + COMPARE_EVERY;
            backlog.begin_comparison();
            if let Ok(Ok(blobs)) = consensus.read(|meta| meta.blobs(None, usize::MAX)) {
                for (digest, record) in blobs {
                    if belongs_here(&digest) && !node.blobs().has(&digest) {
                        backlog.note(digest, record.size, Instant::now());
                    }
                }
                compared_with.clone_from(&members);
            }
            backlog.end_comparison();
        }
        while let Some((digest, _)) = backlog.next(Instant::now()) {
            let fetched = bring(&node, &members, own, &digest).await;
            match fetched {
                Ok(()) => backlog.done(&digest),
                Err(_) if !knows(&consensus, &digest) => backlog.done(&digest),
                Err(setback) => {
                    let _ = backlog.retry(&digest, setback, Instant::now());
                }
            }
        }
    }
}

async fn bring(node: &Node, members: &[Peer], own: u64, digest: &Digest) -> Result<(), Setback> {
    if node.blobs().has(digest) {
        return Ok(());
    }
    let mut setback = Setback::Nowhere;
    for peer in preference(members, &placement_key(digest)) {
        if peer.node_id == own {
            continue;
        }
        let ask = Ask::HasBlob { digest: digest.clone() };
        match node.net.ask(host(&peer.address), ask, FETCH_DEADLINE).await {
            Ok(Answer::Yes) => {
                node.publish(digest).await;
                node.world.lock().counts.repaired += 1;
                return Ok(());
            }
            Ok(_) => {}
            Err(_) => setback = Setback::Failed,
        }
    }
    Err(setback)
}

fn knows(consensus: &Consensus, digest: &Digest) -> bool {
    !matches!(consensus.read(|meta| meta.blob(digest)), Ok(Ok(None)))
}

/// Removes what the group has forgotten.
pub(crate) async fn unlink(node: Arc<Node>) {
    let Some(consensus) = node.consensus().cloned() else { return };
    let careless = node.world.mutation() == Some(Mutation::CollectWithoutRecheck);
    loop {
        // What was too young, and what was passed over, is found by comparing.
        let told = tokio::time::timeout(COMPARE_EVERY, consensus.collected()).await;
        let digests = match told {
            Ok(Collected::Blobs(digests)) if careless => {
                digests.iter().for_each(|digest| remove(&node, digest));
                continue;
            }
            Ok(Collected::Blobs(digests)) => digests,
            Ok(Collected::Unknown) | Err(_) => node.blobs().blobs.keys().cloned().collect(),
        };
        if consensus.read_barrier().await == Freshness::Stale {
            continue;
        }
        for digest in digests {
            let published = node.blobs().blobs.get(&digest).map(|blob| blob.published);
            let young = published.is_none_or(|at| now().saturating_sub(at) < PUBLISH_GRACE);
            if !young && !knows(&consensus, &digest) {
                remove(&node, &digest);
            }
        }
    }
}

fn remove(node: &Node, digest: &Digest) {
    if node.blobs().blobs.remove(digest).is_some() {
        node.world.lock().counts.removed += 1;
        node.world.note(|| format!("replica {} removes {digest}", node.own));
    }
}
