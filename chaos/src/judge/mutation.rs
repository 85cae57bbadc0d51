//! Which bugs can be planted, and who must find each.

use crate::workload::Invariant;

/// A bug of the registry (`storage/src/planted.rs`) and the scenario that must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Its name, for `TERCET_PLANTED_BUG`.
    pub bug: &'static str,
    /// What the registry does wrong then.
    pub breaks: &'static str,
    /// Who finds it.
    pub scenario: &'static str,
    /// The invariants one of which must be found broken. A run that fails in another way has not found the bug.
    pub expected: &'static [Invariant],
    /// So many seeds are tried, one after the other.
    pub seeds: u64,
}

/// Every mutation, in the order in which they are judged.
pub fn all() -> &'static [Mutation] {
    MUTATIONS
}

/// The mutation of that name.
pub fn find(bug: &str) -> Option<&'static Mutation> {
    MUTATIONS.iter().find(|mutation| mutation.bug == bug)
}

const MUTATIONS: &[Mutation] = &[
    Mutation {
        bug: "skip-blob-fsync",
        breaks: "a blob is published without an fsync of its file and its directory",
        scenario: "power-loss",
        expected: &[Invariant::I1, Invariant::I4],
        seeds: 3,
    },
    Mutation {
        bug: "skip-log-fsync",
        breaks: "votes and log entries count as durable before the Raft log is synced",
        scenario: "power-loss",
        expected: &[Invariant::I1, Invariant::I3],
        seeds: 3,
    },
    Mutation {
        bug: "ack-too-early",
        breaks: "a push is acknowledged with one durable copy fewer than the write quorum",
        scenario: "one-copy",
        expected: &[Invariant::I1],
        seeds: 3,
    },
    Mutation {
        bug: "skip-digest-check",
        breaks: "what is uploaded is published under the digest that its sender claims",
        scenario: "lying-clients",
        expected: &[Invariant::I2, Invariant::I7],
        seeds: 3,
    },
    Mutation {
        bug: "stale-as-fresh",
        breaks: "answers that a replica gives without a majority are not marked as stale",
        scenario: "partition-leader",
        expected: &[Invariant::I3],
        seeds: 3,
    },
    Mutation {
        bug: "skip-read-barrier",
        breaks: "reads do not ask the leader how much they must have seen",
        scenario: "pause-leader",
        expected: &[Invariant::I3],
        seeds: 3,
    },
    Mutation {
        bug: "skip-read-check",
        breaks: "a blob is given as it lies on the disk, whatever it hashes to",
        scenario: "rot-everywhere",
        expected: &[Invariant::I2],
        seeds: 3,
    },
    Mutation {
        bug: "collect-without-recheck",
        breaks: "the file of a collected blob goes without a lock, and without a second look at who needs it by now",
        scenario: "gc-storm",
        expected: &[Invariant::I1, Invariant::I4, Invariant::I6],
        seeds: 3,
    },
    Mutation {
        bug: "reuse-node-id",
        breaks: "a disk that is empty gets the Raft id that its replica had before",
        scenario: "lost-disk",
        expected: &[Invariant::I1],
        seeds: 3,
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutation_has_a_scenario_that_looks_for_what_is_expected() {
        let names: BTreeSet<&str> = MUTATIONS.iter().map(|mutation| mutation.bug).collect();
        assert_eq!(names.len(), MUTATIONS.len());
        for mutation in MUTATIONS {
            let scenario = crate::find_scenario(mutation.scenario);
            let scenario = scenario.unwrap_or_else(|| panic!("no scenario for {mutation:?}"));
            let looks = |invariant| scenario.invariants.contains(invariant);
            assert!(!mutation.expected.is_empty(), "{}", mutation.bug);
            assert!(mutation.expected.iter().all(looks), "{}", mutation.bug);
        }
    }
}
