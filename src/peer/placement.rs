//! Which replicas hold what: rendezvous hashing over the members that may hold something.
//!
//! Every replica computes the same answer from the member list alone, and a member that joins or
//! leaves moves only the keys that it gains or loses. Where members say in which zone they stand, the
//! copies of one key go to different zones first.

use std::collections::HashMap;

use tercet_raft::{Leaving, MemberKind, NodeId};
use tercet_storage::{Algorithm, Digest, DigestHasher};

use super::directory::Peer;

/// Whether copies are placed on a member: not on an edge, which keeps what it likes, and not on one
/// that is about to go.
#[must_use]
pub fn is_candidate(member: &Peer) -> bool {
    member.kind == MemberKind::Voter && member.leaving == Leaving::No
}

/// All members in the order in which they are wanted for `key`: the candidates in the order of
/// their copies, then those that are about to go, then the edges.
///
/// The order depends on names and zones, not on node ids: a replica that comes back with a new disk,
/// and so with a new id, is wanted for the same keys as before.
#[must_use]
pub fn preference(members: &[Peer], key: &[u8]) -> Vec<Peer> {
    let ranked = rank(members, key);
    let (candidates, others): (Vec<&Peer>, Vec<&Peer>) =
        ranked.into_iter().partition(|member| is_candidate(member));
    let (edges, leaving): (Vec<&Peer>, Vec<&Peer>) =
        others.into_iter().partition(|member| member.kind == MemberKind::Edge);
    spread(candidates).into_iter().chain(leaving).chain(edges).cloned().collect()
}

/// The members that should hold `key`: all candidates while there are no more than
/// `replication_factor`, else the most wanted.
#[must_use]
pub fn placement(members: &[Peer], replication_factor: usize, key: &[u8]) -> Vec<Peer> {
    placed(members, replication_factor, key).into_iter().cloned().collect()
}

/// Whether `key` is placed on the member `node_id`.
#[must_use]
pub fn is_placed_on(
    members: &[Peer],
    replication_factor: usize,
    key: &[u8],
    node_id: NodeId,
) -> bool {
    placed(members, replication_factor, key).iter().any(|member| member.node_id == node_id)
}

/// The members that should hold `key` beside `own`, which holds it already: as many as make
/// `replication_factor` candidates with it, in zones other than its own first.
#[must_use]
pub fn companions(
    members: &[Peer],
    replication_factor: usize,
    key: &[u8],
    own: NodeId,
) -> Vec<Peer> {
    let mut ranked = rank(members, key);
    ranked.retain(|member| is_candidate(member));
    // First of all, as if it were the most wanted: its zone is taken.
    ranked.sort_by_key(|member| member.node_id != own);
    spread(ranked)
        .into_iter()
        .take(replication_factor)
        .filter(|member| member.node_id != own)
        .cloned()
        .collect()
}

/// The key under which a blob is placed.
#[must_use]
pub fn placement_key(digest: &Digest) -> Vec<u8> {
    digest.to_string().into_bytes()
}

/// How many durable copies an acknowledged push needs: the majority of the copies there should be.
///
/// `candidates` is how many members blobs are placed on, `configured` the number of initial members
/// in the configuration: while a cluster is still growing to its size, one lonely copy must not count
/// as a majority.
#[must_use]
pub fn write_quorum(replication_factor: usize, candidates: usize, configured: usize) -> usize {
    replication_factor.min(candidates.max(configured)) / 2 + 1
}

fn placed<'a>(members: &'a [Peer], replication_factor: usize, key: &[u8]) -> Vec<&'a Peer> {
    let candidates: Vec<&Peer> = members.iter().filter(|member| is_candidate(member)).collect();
    if candidates.len() <= replication_factor {
        // The order does not matter then, and hashing for each blob of a large catalogue does.
        return candidates;
    }
    let mut ranked = spread(weighed(candidates.into_iter(), key));
    ranked.truncate(replication_factor);
    ranked
}

fn rank<'a>(members: &'a [Peer], key: &[u8]) -> Vec<&'a Peer> {
    weighed(members.iter(), key)
}

/// By descending weight.
fn weighed<'a>(members: impl Iterator<Item = &'a Peer>, key: &[u8]) -> Vec<&'a Peer> {
    let mut weighed: Vec<(Digest, &Peer)> =
        members.map(|member| (weight(key, &member.name), member)).collect();
    weighed.sort_unstable_by(|(a, one), (b, other)| {
        b.cmp(a).then_with(|| one.name.cmp(&other.name)).then(one.node_id.cmp(&other.node_id))
    });
    weighed.into_iter().map(|(_, member)| member).collect()
}

/// The first of each zone, then the second of each, and so on. Within a round the order stays. A member
/// that does not say where it stands shares a zone with nobody.
fn spread(ranked: Vec<&Peer>) -> Vec<&Peer> {
    let mut of_zone: HashMap<&str, usize> = HashMap::new();
    let mut rounds: Vec<(usize, &Peer)> = ranked
        .into_iter()
        .map(|member| {
            let Some(zone) = member.zone.as_deref() else { return (0, member) };
            let round = of_zone.entry(zone).or_default();
            *round += 1;
            (*round - 1, member)
        })
        .collect();
    rounds.sort_by_key(|(round, _)| *round);
    rounds.into_iter().map(|(_, member)| member).collect()
}

/// SHA-256 of key and name.
fn weight(key: &[u8], name: &str) -> Digest {
    let mut hasher = DigestHasher::new(Algorithm::Sha256);
    // The length keeps ("ab", "c") and ("a", "bc") apart.
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(name.as_bytes());
    hasher.finish()
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
