//! Named faults: each scenario says what it expects, hurts a cluster, and judges what came of it.
//!
//! One file to a scenario; [`all`] lists them. A new one is a file with a `SCENARIO` and its line below.

mod bit_rot;
mod clock_jump;
mod damage;
mod data_lock;
mod disk_errors;
mod drain;
mod execute;
mod failover;
mod failpoints;
mod faults;
mod few_files;
mod full_disk;
mod gc_storm;
mod kill_all;
mod kill_minority;
mod little_memory;
mod lost_disk;
mod lost_half;
mod member_churn;
mod old_identity;
mod partition_leader;
mod pause_leader;
mod report;
mod rot_everywhere;
mod run;
mod scale;
mod seed;
mod slow_disk;
mod snapshot_install;
mod swizzle_clog;
mod upload_moves;

use anyhow::Result;
use futures_util::future::LocalBoxFuture;

pub use execute::execute;
pub use report::{Report, Verdict};
pub use run::Run;
pub use seed::new_seed;

use crate::workload::Invariant;

/// How long a scenario goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A few faults, in the tests.
    Short,
    /// Enough faults for figures, with the machine for itself.
    Full,
}

impl Length {
    /// Its word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Full => "full",
        }
    }
}

/// What a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Processes and files only.
    Nothing,
    /// A network namespace of its own, to make hosts in.
    Network,
}

/// One named scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// Its rows in the catalogue of faults; none for a figure.
    pub rows: &'static [u8],
    /// What is expected, in a sentence.
    pub hypothesis: &'static str,
    /// What is done to the cluster.
    pub fault: &'static str,
    /// What must hold.
    pub invariants: &'static [Invariant],
    /// Kinds of faults each of which must have happened, or the run says nothing.
    pub fires: &'static [&'static str],
    /// Fewer acknowledged operations per second say nothing either.
    pub floor_per_second: f64,
    /// What it runs in.
    pub needs: Needs,
    pub(crate) body: Body,
}

/// What a scenario does between a fresh book and the verdict.
pub(crate) type Body = for<'a> fn(&'a mut Run) -> LocalBoxFuture<'a, Result<()>>;

/// Every scenario, in the order in which they are listed and run.
pub fn all() -> Vec<Scenario> {
    vec![
        kill_minority::SCENARIO,
        kill_all::SCENARIO,
        pause_leader::SCENARIO,
        partition_leader::SCENARIO,
        swizzle_clog::SCENARIO,
        clock_jump::SCENARIO,
        snapshot_install::SCENARIO,
        drain::SCENARIO,
        data_lock::SCENARIO,
        upload_moves::SCENARIO,
        gc_storm::SCENARIO,
        full_disk::SCENARIO,
        little_memory::SCENARIO,
        few_files::SCENARIO,
        scale::SCENARIO,
        failover::SCENARIO,
        failpoints::SCENARIO,
        bit_rot::SCENARIO,
        rot_everywhere::SCENARIO,
        disk_errors::SCENARIO,
        slow_disk::SCENARIO,
        lost_disk::SCENARIO,
        old_identity::SCENARIO,
        lost_half::SCENARIO,
        member_churn::SCENARIO,
    ]
}

/// The scenario of that name.
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_scenario_states_itself() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len());
        for scenario in all {
            assert!(!scenario.hypothesis.is_empty() && !scenario.fault.is_empty());
            assert!(!scenario.invariants.is_empty(), "{}", scenario.name);
            assert!(!scenario.fires.is_empty(), "{}", scenario.name);
        }
    }
}
