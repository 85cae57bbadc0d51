//! Agreement on metadata: what the replicas of one registry decide together.
//!
//! A [`Consensus`] is one replica's seat in the Raft group. It proposes [`Command`]s, answers reads
//! behind the read barrier, and takes the RPCs that the peer listener hands it. Blob bytes never pass
//! through here, and nothing in here knows HTTP: bytes reach other replicas through the
//! [`Transport`] that the caller supplies.

mod admit;
mod blocking;
mod bootstrap;
mod chance;
mod change;
mod checkpoint;
mod chores;
mod command;
mod config;
mod confirmed;
mod consensus;
mod error;
mod feature;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod inspect;
mod latency;
mod log;
mod machine;
mod membership;
mod network;
mod outcome;
mod read;
mod records;
mod refound;
mod room;
mod roster;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod state_hash;
mod type_config;

pub use bootstrap::{BootstrapOptions, InitialMember, bootstrap};
pub use change::{ChangeRefused, Changed, Force};
pub use checkpoint::Checkpoint;
pub use command::{
    AbsentReferences, Command, Condition, ExpiredManifest, ExpiredTag, Growth, Leaving, Proposal,
    PullSeen,
};
pub use config::RaftTiming;
pub use consensus::{Consensus, Member, RaftStatus, Role, StartOptions};
pub use error::{ProposeError, RaftError, RpcError};
pub use feature::{FEATURE_LEVEL, own_feature_level};
pub use identity::Identity;
pub use inspect::{LogInspection, StatePosition, inspect_log, inspect_state};
pub use machine::Collected;
pub use machine::{PULLS_MAX, RETIRED_MAX};
pub use network::{Hello, Invitation, RpcKind, Target, Transport, TransportError};
pub use outcome::Outcome;
pub use read::Freshness;
pub use refound::{
    Evidence, Founder, Refounded, Survey, SurvivingLog, Survivor, Task, Unfinished, begin_restore,
    refound_checkpoint, restored_state, resume,
};
pub use state_hash::{StateHash, hash_state};
pub use type_config::{MemberKind, NodeId, ReplicaNode};

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
        "state.before_membership",
        "state.after_membership",
        "snapshot.checkpoint_taken",
        "snapshot.install_prepared",
        "snapshot.install_old_aside",
        "snapshot.install_new_in",
        "snapshot.install_durable",
    ];

    /// Steps of founding a new cluster from a surviving disk, in order.
    pub const REFOUND_FAILPOINTS: &[&str] = &[
        "refound.state_copied",
        "refound.log_applied",
        "refound.state_changed",
        "refound.log_made",
        "refound.prepared",
        "refound.identity_copied",
        "refound.marked",
        "refound.old_aside",
        "refound.new_in",
        "refound.before_identity",
        "refound.after_identity",
    ];
}
