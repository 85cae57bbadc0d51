//! Lets go of copies that are placed elsewhere, once everybody on whom they are placed has them.
//!
//! They come from uploads, whose holders are chosen before the digest is known, from pulls that came
//! through, and from members that joined. Nothing goes while anything is missing anywhere, or while a
//! member is about to go or does not answer: a copy too many harms nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tercet_raft::{Leaving, NodeId};
use tercet_storage::{Digest, Standing, Unlinked};
use tokio::time::Instant;

use super::census;
use super::shared::Shared;
use crate::peer::directory::Peer;
use crate::peer::placement::{is_candidate, is_placed_on, placement, placement_key};
use crate::peer::wire::{BlobSize, CONFIRM_MAX};

/// Between two looks at what there is.
const SURPLUS_EVERY: Duration = Duration::from_secs(5);
/// Between two looks while nothing may go.
const SURPLUS_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two batches, so that confirming never fills the peers' disks with reads.
const BATCH_PAUSE: Duration = Duration::from_secs(1);
/// The most bytes that are asked about at a time: who is asked may have to read them.
const BATCH_BYTES: u64 = 1024 * 1024 * 1024;
/// How old a confirmation may be when it is used.
const CONFIRMATION_AGE_MAX: Duration = Duration::from_secs(30);

pub(super) async fn run(shared: &Shared) {
    let mut pause = SURPLUS_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let before = shared.metrics.surplus_removed.get();
        let mut surplus = old_enough(shared).await;
        while !surplus.is_empty() {
            let members = shared.directory.members();
            if !all_is_well(shared, &members).await {
                break;
            }
            let batch = next_batch(&mut surplus);
            release(shared, &members, batch).await;
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        // What did not go will hardly go in the next moment.
        let in_vain = shared.metrics.surplus_removed.get() == before;
        let longer = shared.surplus_after.clamp(SURPLUS_EVERY, SURPLUS_PAUSE_MAX);
        pause = if in_vain { longer } else { SURPLUS_EVERY };
    }
}

/// Those that came here long enough ago. Asking about the others would be in vain.
async fn old_enough(shared: &Shared) -> BTreeMap<Digest, u64> {
    let newest = shared
        .clock
        .now_ms()
        .saturating_sub(u64::try_from(shared.surplus_after.as_millis()).unwrap_or(u64::MAX));
    let mut old = BTreeMap::new();
    for (digest, size) in shared.surplus() {
        match shared.blobs.stat(&digest).await {
            Ok(Some(file)) if file.modified_ms <= newest => {
                old.insert(digest, size);
            }
            Ok(None) => shared.forget_surplus(&digest),
            _ => {}
        }
    }
    old
}

/// Whether anything may go at all.
async fn all_is_well(shared: &Shared, members: &[Peer]) -> bool {
    let candidates = members.iter().filter(|member| is_candidate(member)).count();
    let itself = members.iter().find(|member| member.node_id == shared.directory.own());
    // An edge has rules of its own, and one that is about to go takes its copies with it.
    if candidates <= shared.replication_factor || !itself.is_some_and(is_candidate) {
        return false;
    }
    let census = census::take(shared, members).await;
    let all_stay = members.iter().all(|member| member.leaving == Leaving::No);
    all_stay && census.silent.is_empty() && census.missing == 0
}

fn next_batch(surplus: &mut BTreeMap<Digest, u64>) -> Vec<(Digest, u64)> {
    let mut batch: Vec<(Digest, u64)> = Vec::new();
    let mut bytes: u64 = 0;
    while batch.len() < CONFIRM_MAX
        && let Some((_, size)) = surplus.first_key_value()
    {
        bytes = bytes.saturating_add(*size);
        if bytes > BATCH_BYTES && !batch.is_empty() {
            break;
        }
        batch.extend(surplus.pop_first());
    }
    batch
}

/// Asks about a batch, and lets go of what may.
async fn release(shared: &Shared, members: &[Peer], batch: Vec<(Digest, u64)>) {
    let factor = shared.replication_factor;
    let mut questions: BTreeMap<NodeId, (Peer, Vec<BlobSize>)> = BTreeMap::new();
    for (digest, size) in &batch {
        for holder in placement(members, factor, &placement_key(digest)) {
            let (_, blobs) =
                questions.entry(holder.node_id).or_insert_with(|| (holder, Vec::new()));
            blobs.push(BlobSize { digest: digest.clone(), size: *size });
        }
    }
    // Who is asked may have to read it all: that is part of what repair may cost.
    shared.budget.take(batch.iter().map(|(_, size)| *size).fold(0, u64::saturating_add)).await;
    let asked_at = Instant::now();
    let client = &shared.fetcher.parts.peers;
    let asked = questions.into_values().map(|(holder, blobs)| async move {
        let confirmed = client.confirm_blobs(&holder, blobs).await.unwrap_or_else(|error| {
            tracing::debug!(peer = %holder.name, %error, "no confirmation of copies");
            Vec::new()
        });
        (holder.node_id, confirmed)
    });
    let confirmed: BTreeMap<NodeId, BTreeSet<Digest>> = join_all(asked)
        .await
        .into_iter()
        .map(|(holder, digests)| (holder, digests.into_iter().collect()))
        .collect();
    for (digest, _) in batch {
        let holders = placement(members, factor, &placement_key(&digest));
        let has = |holder: &Peer| {
            confirmed.get(&holder.node_id).is_some_and(|digests| digests.contains(&digest))
        };
        if holders.len() == factor
            && holders.iter().all(has)
            && asked_at.elapsed() < CONFIRMATION_AGE_MAX
        {
            let_go(shared, members, digest).await;
        }
    }
}

/// Removes a copy, with a second look at the membership while nobody can publish the digest.
async fn let_go(shared: &Shared, members: &[Peer], digest: Digest) {
    let (directory, factor) = (shared.directory.clone(), shared.replication_factor);
    let (asked, key) = (Arc::new(members.to_vec()), placement_key(&digest));
    let standing = move || {
        let now = directory.members();
        // Whoever confirmed did so for this membership.
        if now == *asked && !is_placed_on(&now, factor, &key, directory.own()) {
            Standing::Unknown
        } else {
            Standing::Known
        }
    };
    match shared.blobs.collect(&digest, shared.surplus_after, standing).await {
        Ok(Unlinked::Removed { bytes }) => {
            shared.forget_surplus(&digest);
            shared.metrics.surplus_removed.inc();
            tracing::info!(%digest, bytes, "a copy that is placed elsewhere is removed");
        }
        Ok(Unlinked::Young) => {}
        Ok(Unlinked::Absent | Unlinked::Known) => shared.forget_surplus(&digest),
        Err(error) => tracing::warn!(%digest, %error, "cannot remove a copy too many"),
    }
}
