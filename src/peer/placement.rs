//! Which replicas hold what: rendezvous hashing.
//!
//! Every replica computes the same answer from the member list alone, and a member that joins or
//! leaves moves only the keys that it gains or loses.

use super::directory::Peer;
use tercet_storage::{Algorithm, Digest, DigestHasher};

/// The members in the order in which they are wanted as holders of `key`, all of them.
///
/// The order depends on names, not on node ids: a replica that comes back with a new disk, and so
/// with a new id, is wanted for the same keys as before.
#[must_use]
pub fn rank(members: &[Peer], key: &[u8]) -> Vec<Peer> {
    let mut weighed: Vec<(String, &Peer)> =
        members.iter().map(|member| (weight(key, &member.name), member)).collect();
    weighed.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    weighed.into_iter().map(|(_, member)| member.clone()).collect()
}

/// The members that should hold `key`: the first `replication_factor` of [`rank`].
#[must_use]
pub fn placement(members: &[Peer], replication_factor: usize, key: &[u8]) -> Vec<Peer> {
    let mut ranked = rank(members, key);
    ranked.truncate(replication_factor);
    ranked
}

/// The key under which a blob is placed.
#[must_use]
pub fn placement_key(digest: &Digest) -> Vec<u8> {
    digest.to_string().into_bytes()
}

/// How many durable copies an acknowledged push needs: the majority of the copies there should be.
///
/// `configured` is the number of initial members in the configuration: while a cluster is still
/// growing to its size, one lonely copy must not count as a majority.
#[must_use]
pub fn write_quorum(replication_factor: usize, members: usize, configured: usize) -> usize {
    replication_factor.min(members.max(configured)) / 2 + 1
}

/// Hexadecimal SHA-256 of key and name; fixed width, so it compares like the number it spells.
fn weight(key: &[u8], name: &str) -> String {
    let mut hasher = DigestHasher::new(Algorithm::Sha256);
    // The length keeps ("ab", "c") and ("a", "bc") apart.
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(name.as_bytes());
    hasher.finish().hex()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const KEYS: usize = 3_000;

    fn members(count: u64) -> Vec<Peer> {
        (0..count)
            .map(|i| Peer {
                name: format!("tercet-{i}"),
                node_id: 1000 + i,
                address: format!("http://127.0.0.1:{}", 5001 + 10 * i),
            })
            .collect()
    }

    fn names(peers: &[Peer]) -> BTreeSet<String> {
        peers.iter().map(|peer| peer.name.clone()).collect()
    }

    fn key(i: usize) -> Vec<u8> {
        format!("sha256:{i:064x}").into_bytes()
    }

    #[test]
    fn every_replica_holds_everything_while_there_are_few() {
        let members = members(3);
        for i in 0..100 {
            assert_eq!(names(&placement(&members, 3, &key(i))), names(&members));
            assert_eq!(placement(&members, 5, &key(i)).len(), 3);
        }
    }

    #[test]
    fn the_answer_does_not_depend_on_the_order_or_the_ids() {
        let ordered = members(7);
        let mut shuffled: Vec<Peer> = ordered.iter().rev().cloned().collect();
        for peer in &mut shuffled {
            peer.node_id += 500;
        }
        for i in 0..200 {
            let left: Vec<String> = rank(&ordered, &key(i)).into_iter().map(|p| p.name).collect();
            let right: Vec<String> = rank(&shuffled, &key(i)).into_iter().map(|p| p.name).collect();
            assert_eq!(left, right);
        }
    }

    #[test]
    fn load_is_balanced() {
        let members = members(7);
        let mut held: BTreeMap<String, usize> = BTreeMap::new();
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for i in 0..KEYS {
            let holders = placement(&members, 3, &key(i));
            assert_eq!(names(&holders).len(), 3);
            *first.entry(holders[0].name.clone()).or_default() += 1;
            for holder in holders {
                *held.entry(holder.name).or_default() += 1;
            }
        }
        for member in &members {
            let share = held[&member.name] as f64 / (KEYS as f64 * 3.0 / 7.0);
            assert!((0.85..1.15).contains(&share), "{} holds {share} of its share", member.name);
            let share = first[&member.name] as f64 / (KEYS as f64 / 7.0);
            assert!((0.75..1.25).contains(&share), "{} leads {share} of its share", member.name);
        }
    }

    #[test]
    fn a_member_that_joins_moves_only_what_it_gains() {
        let before = members(6);
        let after = members(7);
        let mut moved = 0;
        for i in 0..KEYS {
            let old = names(&placement(&before, 3, &key(i)));
            let new = names(&placement(&after, 3, &key(i)));
            let gained: Vec<&String> = new.difference(&old).collect();
            assert!(gained.is_empty() || gained == ["tercet-6"], "{gained:?}");
            moved += gained.len();
        }
        let expected = KEYS * 3 / 7;
        assert!(moved.abs_diff(expected) < expected / 5, "{moved} moved, expected {expected}");
    }

    #[test]
    fn write_quorum_is_a_majority_of_the_copies() {
        assert_eq!(write_quorum(3, 3, 3), 2);
        assert_eq!(write_quorum(3, 1, 1), 1);
        // Two of three have joined so far: still two copies.
        assert_eq!(write_quorum(3, 1, 3), 2);
        assert_eq!(write_quorum(3, 7, 3), 2);
        assert_eq!(write_quorum(5, 5, 5), 3);
        assert_eq!(write_quorum(3, 2, 2), 2);
    }
}
