//! What can go wrong between replicas, in the words of the operator who meets it.

use std::path::PathBuf;

use tercet_storage::StorageError;
use thiserror::Error;

/// A replica cannot start or go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RaftError {
    /// The disk below failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// `identity.json` cannot be read as what this version wrote.
    #[error(
        "identity file {path} is not valid: {reason}. Restore it from the same disk, or wipe this replica's data directory: it then rejoins as a new member"
    )]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The configured members belong to more than one cluster, or to another one than this disk.
    #[error("{0}")]
    ClusterMismatch(String),
    /// The state machine is ahead of the log: entries that were acknowledged are gone.
    #[error(
        "TERCET-M10: the Raft log ends at {last_log} but entries up to {applied} were applied: the log at {path} has lost acknowledged entries. Wipe this replica's data directory: it then rejoins as a new member"
    )]
    LogLost {
        /// The log database.
        path: PathBuf,
        /// Last index in the log.
        last_log: u64,
        /// Last index applied.
        applied: u64,
    },
    /// The log was purged behind a state that is not there any more.
    #[error(
        "TERCET-M10: the Raft log begins behind {purged} but the state at {path} ends at {applied}: the state has lost entries. Wipe this replica's data directory: it then rejoins as a new member"
    )]
    StateLost {
        /// The state database.
        path: PathBuf,
        /// Index up to which the log was purged.
        purged: u64,
        /// Last index applied.
        applied: u64,
    },
    /// Another replica has seen more of this one than its disk has: an older copy of it, or one that has lost what it
    /// had synced.
    #[error(
        "TERCET-M13: replica `{witness}` has seen this one confirm {confirmed}, and its disk ends at {own}: it is an older copy, or has lost what was synced. It must not vote. Wipe this replica's data directory: it then rejoins as a new member"
    )]
    Outdated {
        /// Who has.
        witness: String,
        /// What was confirmed.
        confirmed: String,
        /// What the disk says.
        own: String,
    },
    /// A recovery or a restore of this data directory was interrupted: it belongs to no cluster yet.
    #[error(
        "a `tercet {command}` into {path} was interrupted: run the same command again to finish it. Nothing starts on this directory before"
    )]
    Unfinished {
        /// The data directory.
        path: PathBuf,
        /// The command.
        command: &'static str,
    },
    /// No new cluster can begin with this data directory or backup.
    #[error("no new cluster can be founded from this: {0}")]
    Refound(String),
    /// The cluster writes what this version cannot read.
    #[error(
        "TERCET-M11: the cluster is at feature level {cluster}, this version of Tercet knows {own} only: version {version} or a later one is needed (docs/src/upgrade.md)"
    )]
    FeatureLevel {
        /// The cluster's level, from this replica's own state.
        cluster: u32,
        /// What this binary knows.
        own: u32,
        /// The lowest version that knows the cluster's.
        version: String,
    },
    /// openraft stopped.
    #[error("raft stopped: {0}")]
    Stopped(String),
    /// The group refused this replica.
    #[error("the cluster refuses this replica: {0}")]
    Refused(String),
}

/// A proposal that got no outcome.
#[derive(Debug, Clone, Error)]
pub enum ProposeError {
    /// It surely was not done: no leader, or nobody took it.
    #[error("no quorum: {0}")]
    Unavailable(String),
    /// It may have been done: the answer did not come in time. Commands are idempotent, so the
    /// client may simply try again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Not every member understands the command. It surely was not done.
    #[error(
        "the cluster is at feature level {current} and this needs {needed}: wait until all replicas run the new version"
    )]
    FeatureLevel {
        /// The level that the command needs.
        needed: u32,
        /// The cluster's.
        current: u32,
    },
    /// The disks have no room for it. Not done, or, if the disks filled up meanwhile, done once there is
    /// space. HTTP 507.
    #[error("no space: {0}")]
    NoSpace(String),
}

/// A peer's RPC that this replica does not answer.
#[derive(Debug, Clone, Error)]
pub enum RpcError {
    /// The bytes are not a message of this version.
    #[error("malformed {rpc} message: {reason}")]
    Malformed {
        /// Which RPC.
        rpc: &'static str,
        /// Why.
        reason: String,
    },
    /// The replica cannot answer now.
    #[error("{0}")]
    Unavailable(String),
    /// The replica's disk has no room for what the message would have it write. HTTP 507.
    #[error("no space: {0}")]
    NoSpace(String),
}
