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
    #[error("cluster mismatch: {0}")]
    ClusterMismatch(String),
    /// The state machine is ahead of the log: entries that were acknowledged are gone.
    #[error(
        "the Raft log ends at {last_log} but entries up to {applied} were applied: the log at {path} has lost acknowledged entries. Wipe this replica's data directory: it then rejoins as a new member"
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
        "the Raft log begins behind {purged} but the state at {path} ends at {applied}: the state has lost entries. Wipe this replica's data directory: it then rejoins as a new member"
    )]
    StateLost {
        /// The state database.
        path: PathBuf,
        /// Index up to which the log was purged.
        purged: u64,
        /// Last index applied.
        applied: u64,
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
}
