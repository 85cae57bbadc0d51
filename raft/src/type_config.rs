//! openraft's types, named once. Nothing outside this crate sees them, and none is written to disk.

use serde::{Deserialize, Serialize};

use crate::command::Proposal;
use crate::outcome::Outcome;

/// A replica's Raft id: random, 53 bits (so that JSON readers keep it exact), never used again once
/// its disk is gone.
pub type NodeId = u64;

/// What the membership records about a replica: where its peers reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaNode {
    /// The configured name, such as `tercet-0`. A replacement keeps the name and gets a new id.
    pub name: String,
    /// Base URL of the peer listener, such as `https://tercet-0.tercet:5001`.
    pub address: String,
}

openraft::declare_raft_types!(
    /// The types that Tercet runs openraft with.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = NodeId,
        Node = ReplicaNode,
);

pub(crate) mod alias {
    use super::TypeConfig;

    pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
    pub(crate) type LeaderId = openraft::alias::LeaderIdOf<TypeConfig>;
    pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
    pub(crate) type Membership = openraft::Membership<super::NodeId, super::ReplicaNode>;
    pub(crate) type Payload = openraft::alias::EntryPayloadOf<TypeConfig>;
    pub(crate) type Raft = openraft::Raft<TypeConfig, crate::machine::Machine>;
    pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, crate::machine::SnapshotDir>;
    pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
    pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
    pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
}
