//! Agreement on metadata: what the replicas of one registry decide together.
//!
//! A [`Consensus`] is one replica's seat in the Raft group. It proposes [`Command`]s, answers reads
//! behind the read barrier, and takes the RPCs that the peer listener hands it. Blob bytes never pass
//! through here, and nothing in here knows HTTP: bytes reach other replicas through the
//! [`Transport`] that the caller supplies.

mod bootstrap;
mod command;
mod config;
mod consensus;
mod error;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod log;
mod machine;
mod membership;
mod network;
mod outcome;
mod read;
mod records;
mod type_config;

pub use bootstrap::{InitialMember, bootstrap};
pub use command::{AbsentReferences, Command, Condition, Proposal};
pub use config::RaftTiming;
pub use consensus::{Consensus, Member, RaftStatus, Role, StartOptions};
pub use error::{ProposeError, RaftError, RpcError};
pub use identity::Identity;
pub use network::{Hello, RpcKind, Target, Transport, TransportError};
pub use outcome::Outcome;
pub use read::Freshness;
pub use type_config::{NodeId, ReplicaNode};

/// The stores behind [`Consensus`], public so that openraft's own conformance suite and the crash
/// tests can drive them; nothing else should.
pub mod stores {
    pub use crate::log::{LogReader, LogStore};
    pub use crate::machine::{Machine, SnapshotDir};
    pub use crate::type_config::TypeConfig;

    /// Every failpoint of this crate (see `tercet_storage::failpoint`), for the crash tests.
    pub const FAILPOINTS: &[&str] = &[
        "raft_log.vote_written",
        "raft_log.entries_written",
        "raft_log.before_sync",
        "raft_log.after_sync",
        "raft_log.truncated",
        "raft_log.purged",
        "state.before_commit",
        "state.after_commit",
        "snapshot.checkpoint_taken",
        "snapshot.install_prepared",
        "snapshot.install_old_aside",
        "snapshot.install_new_in",
        "snapshot.install_durable",
    ];
}
