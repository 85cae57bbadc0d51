//! How many blobs have fewer copies than they should: the leader asks around, and tells.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tercet_raft::NodeId;
use tercet_storage::Digest;
use tokio::time::Instant;

use super::Catalogue;
use super::shared::{Shared, gauge};
use crate::peer::directory::Peer;
use crate::peer::placement::{is_candidate, placement, placement_key};

/// Between two rounds.
const CENSUS_EVERY: Duration = Duration::from_secs(5);
/// How long one member may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Rounds that a member may miss: one that is busy is not gone.
const MISSES_MAX: usize = 1;
/// How long a count over the whole catalogue is used.
const COUNT_AGE_MAX: Duration = Duration::from_secs(60);
/// Blobs read at a time.
const PAGE: usize = 2_048;

/// What the members on which blobs are placed say.
#[derive(Debug)]
pub(super) struct Census {
    /// Those that do not answer, or cannot say yet.
    pub(super) silent: Vec<NodeId>,
    /// The sum of what the others miss.
    pub(super) missing: u64,
}

/// Asks every candidate but this replica, and adds this replica's own part.
pub(super) async fn take(shared: &Shared, members: &[Peer]) -> Census {
    let own = shared.directory.own();
    let client = &shared.fetcher.parts.peers;
    let asked = members.iter().filter(|member| is_candidate(member) && member.node_id != own);
    let answers =
        asked.map(|member| async move { (member.node_id, client.status(member, ANSWER).await) });
    let missing = shared.backlog().totals(Instant::now()).missing as u64;
    let mut census = Census { silent: Vec::new(), missing };
    if shared.metrics.repair_compared_applied.get() == 0 {
        census.silent.push(own);
    }
    for (node_id, answer) in join_all(answers).await {
        match answer {
            // Who has not looked at its disk yet cannot be counted on.
            Ok(status) => match status.missing_blobs() {
                Some(missing) => census.missing = census.missing.saturating_add(missing),
                None => census.silent.push(node_id),
            },
            Err(_) => census.silent.push(node_id),
        }
    }
    census
}

/// A count over the whole catalogue, and what it was made for.
struct Count {
    members: Vec<Peer>,
    silent: Vec<NodeId>,
    made: Instant,
    placed: u64,
}

pub(super) async fn run(shared: &Shared) {
    let mut misses: Vec<Vec<NodeId>> = Vec::new();
    let mut count: Option<Count> = None;
    loop {
        tokio::time::sleep(CENSUS_EVERY).await;
        if !shared.catalogue.leads() {
            shared.metrics.under_replicated.set(0);
            misses.clear();
            continue;
        }
        let members = shared.directory.members();
        let Census { silent, missing } = take(shared, &members).await;
        let long_silent: Vec<NodeId> = silent
            .iter()
            .filter(|node_id| {
                misses.len() >= MISSES_MAX && misses.iter().all(|round| round.contains(node_id))
            })
            .copied()
            .collect();
        misses.push(silent);
        if misses.len() > MISSES_MAX {
            misses.remove(0);
        }
        let placed = placed_on(shared, members, long_silent, &mut count).await;
        // A blob that two members lack counts twice, so this is an upper bound.
        let all = shared.catalogued().max(placed);
        shared.metrics.under_replicated.set(gauge(missing.saturating_add(placed).min(all)));
    }
}

/// How many blobs are placed on at least one of `silent`.
async fn placed_on(
    shared: &Shared,
    members: Vec<Peer>,
    silent: Vec<NodeId>,
    count: &mut Option<Count>,
) -> u64 {
    if silent.is_empty() {
        return 0;
    }
    let candidates = members.iter().filter(|member| is_candidate(member)).count();
    if candidates <= shared.replication_factor {
        return shared.catalogued();
    }
    if let Some(count) = count
        && count.members == members
        && count.silent == silent
        && count.made.elapsed() < COUNT_AGE_MAX
    {
        return count.placed;
    }
    let (catalogue, factor) = (Arc::clone(&shared.catalogue), shared.replication_factor);
    let counting = tokio::task::spawn_blocking(move || {
        let placed = walk(&*catalogue, &members, factor, &silent)?;
        Ok::<_, String>(Count { members, silent, made: Instant::now(), placed })
    });
    match counting.await.map_err(|error| error.to_string()).and_then(|counted| counted) {
        Ok(counted) => count.insert(counted).placed,
        Err(reason) => {
            tracing::warn!(reason, "cannot count the blobs with too few copies");
            shared.catalogued()
        }
    }
}

fn walk(
    catalogue: &dyn Catalogue,
    members: &[Peer],
    replication_factor: usize,
    silent: &[NodeId],
) -> Result<u64, String> {
    let mut after: Option<Digest> = None;
    let mut found = 0;
    loop {
        let page = catalogue.page(after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(last.clone());
        for (digest, _) in &page {
            let holders = placement(members, replication_factor, &placement_key(digest));
            found += u64::from(holders.iter().any(|holder| silent.contains(&holder.node_id)));
        }
    }
}
