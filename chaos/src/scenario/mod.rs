//! Named faults: each scenario says what it expects, hurts a cluster, and judges what came of it.
//!
//! One file to a scenario; [`all`] lists them. A new one is a file with a `SCENARIO` and its line below.

mod bit_rot;
mod book;
mod bridge;
mod clock_jump;
mod corrupt_peers;
mod damage;
mod data_lock;
mod disk_errors;
mod disks;
mod drain;
mod execute;
mod failover;
mod failpoints;
mod faults;
mod few_files;
mod flapping_link;
mod full_disk;
mod gc_storm;
mod kill_all;
mod kill_minority;
mod little_memory;
mod log_disk_full;
mod lost_disk;
mod lost_half;
mod lying_clients;
mod member_churn;
mod namespaces;
mod old_identity;
mod one_copy;
mod one_way_cut;
mod partition_leader;
mod pause_leader;
mod power_loss;
mod power_loss_one;
mod revival;
mod rolling_upgrade;
mod rot_everywhere;
mod run;
mod scale;
mod seed;
mod slow_disk;
mod slow_link;
mod snapshot_install;
mod soak;
mod stale_disk;
mod storm;
mod strange_peers;
mod swizzle_clog;
mod tokens;
mod torn_write;
mod upload_crowd;
mod upload_moves;

use anyhow::Result;
use futures_util::future::LocalBoxFuture;

pub use book::{NOTE, pages};
pub(crate) use execute::milliseconds;
pub use execute::{execute, execute_within};
pub use namespaces::Namespaces;
pub use run::Run;
pub use seed::{derived_seed, fixed_seed, new_seed};

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

/// What a scenario cannot do without. Where there can be hosts each replica has one, whether or not the scenario needs
/// that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Processes and files only.
    Nothing,
    /// Replicas on loopback, also where there can be hosts: this is why.
    Loopback(&'static str),
    /// What the kernel gives to root alone.
    Root,
    /// A network namespace of its own, to make hosts in.
    Network,
    /// A mount namespace of its own, for small disks.
    Mounts,
    /// A mount namespace of its own, and `/dev/fuse` to mount its own file systems.
    Fuse,
    /// Both.
    NetworkAndFuse,
}

/// Where a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// By `make test`, in its short form, and by `make chaos`.
    Smoke,
    /// By `make chaos` only.
    Full,
}

impl Lane {
    /// Its word in lists.
    pub fn word(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Full => "full",
        }
    }
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
    /// The steady state before: what must be true before anything is hurt.
    pub given: &'static str,
    /// When a person who watches stops the experiment.
    pub abort: &'static str,
    /// What is expected after the fault, and within what time.
    pub recovery: &'static str,
    /// How everything is undone if the program dies half-way.
    pub rollback: &'static str,
    /// What must hold.
    pub invariants: &'static [Invariant],
    /// Kinds of faults each of which must have happened, or the run says nothing.
    pub fires: &'static [&'static str],
    /// Fewer acknowledged operations per second say nothing either.
    pub floor_per_second: f64,
    /// Where it is run.
    pub lane: Lane,
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
        one_way_cut::SCENARIO,
        bridge::SCENARIO,
        flapping_link::SCENARIO,
        slow_link::SCENARIO,
        corrupt_peers::SCENARIO,
        upload_crowd::SCENARIO,
        lying_clients::SCENARIO,
        strange_peers::SCENARIO,
        storm::SCENARIO,
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
        log_disk_full::SCENARIO,
        power_loss::SCENARIO,
        power_loss_one::SCENARIO,
        torn_write::SCENARIO,
        stale_disk::SCENARIO,
        one_copy::SCENARIO,
        rolling_upgrade::SCENARIO,
        soak::SCENARIO,
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
            for text in [
                scenario.hypothesis,
                scenario.fault,
                scenario.given,
                scenario.abort,
                scenario.recovery,
                scenario.rollback,
            ] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{}: {text}", scenario.name);
            }
            assert!(!scenario.invariants.is_empty(), "{}", scenario.name);
            assert!(!scenario.fires.is_empty(), "{}", scenario.name);
        }
    }
}
