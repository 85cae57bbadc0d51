//! Raft's clock and bounds.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use crate::error::RaftError;

/// Purge in big steps: each purge is a range tombstone that every later read has to pass.
const PURGE_BATCH_MAX: u64 = 1_000;

/// How fast a replica notices that the leader is gone, and how long it waits for others.
#[derive(Debug, Clone)]
pub struct RaftTiming {
    /// Time between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// A follower that heard nothing for `election_max` and then a random time between these two stands for
    /// election: openraft trusts a leader that was heard for `election_max`.
    pub election_min: Duration,
    /// See `election_min`.
    pub election_max: Duration,
    /// How long a write may take, from the proposal to the answer.
    pub write_deadline: Duration,
    /// How long the read barrier waits before it answers "stale".
    pub read_deadline: Duration,
    /// Log entries after which a snapshot is taken and the log before it is purged.
    pub entries_per_snapshot: u64,
    /// Entries kept behind a snapshot, so that a replica that was away for a moment catches up from
    /// the log and not from a whole snapshot.
    pub entries_kept: u64,
}

impl Default for RaftTiming {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(750),
            write_deadline: Duration::from_millis(4000),
            read_deadline: Duration::from_millis(1000),
            entries_per_snapshot: 20_000,
            entries_kept: 5_000,
        }
    }
}

/// A leader's reads count on a confirmation by a quorum that is at most so many heartbeats old.
const READ_LEASE_HEARTBEATS: u32 = 2;

impl RaftTiming {
    /// How old a quorum's confirmation may be for a leader to answer reads without asking again.
    pub(crate) fn read_lease(&self) -> Duration {
        self.heartbeat * READ_LEASE_HEARTBEATS
    }

    pub(crate) fn openraft_config(&self, cluster_id: &str) -> Result<Config, RaftError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            enable_pre_vote: Some(true),
            max_payload_entries: 256,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.entries_per_snapshot),
            max_in_snapshot_log_to_keep: self.entries_kept,
            purge_batch_size: PURGE_BATCH_MAX.min(self.entries_per_snapshot),
            replication_lag_threshold: self.entries_kept,
            install_snapshot_timeout: 600_000,
            // A replica whose volume was put back to an older state has less log than it has confirmed. Without this
            // openraft's leader dies of that answer in a debug build, and in a release build never sends it anything again:
            // one bad disk takes a good replica with it, at the moment when the two of them may have the only copies. So
            // the leader starts over with it. What that cannot mend is in docs/src/members.md: "A disk that was put back".
            allow_log_reversion: Some(true),
            // A leader that restarts stands for election like anybody else. openraft would let it go on where it was, and read
            // at the commit it remembers. Neither that nor the state is synced with each entry, so after a loss of
            // power of all replicas it would answer reads from before what it had acknowledged, and call them fresh.
            enable_leader_restore: Some(false),
            ..Config::default()
        }
        .validate()
        .map_err(|error| RaftError::Stopped(format!("invalid Raft timing: {error}")))
    }
}
