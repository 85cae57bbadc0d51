//! openraft's types, named once. Nothing outside this crate sees them, and none is written to disk.

use serde::{Deserialize, Serialize};

use crate::command::Proposal;
use crate::outcome::Outcome;

/// A replica's Raft id: random, 53 bits (so that JSON readers keep it exact), never used again once
/// its disk is gone.
pub type NodeId = u64;

/// What a member is there for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// It votes, while there are not voters enough.
    #[default]
    Voter,
    /// It follows for good and never votes.
    Edge,
}

impl MemberKind {
    /// The word that the configuration and `/status` use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Edge => "edge",
        }
    }
}

/// What the membership records about a replica: where its peers reach it, and what it is there for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireNode", into = "WireNode")]
pub struct ReplicaNode {
    /// The configured name, such as `tercet-0`. A replacement keeps the name and gets a new id.
    pub name: String,
    /// Base URL of the peer listener, such as `https://tercet-0.tercet:5001`.
    pub address: String,
    /// Whether it may vote.
    pub kind: MemberKind,
    /// Where it stands, such as a rack or an availability zone, if that is known.
    pub zone: Option<String>,
}

impl ReplicaNode {
    /// Whether a replica that knows neither kinds nor zones misses nothing about it.
    pub(crate) fn is_plain(&self) -> bool {
        self.kind == MemberKind::Voter && self.zone.is_none()
    }

    /// What such a replica may be told about it.
    pub(crate) fn plain(&self) -> Self {
        Self { kind: MemberKind::Voter, zone: None, ..self.clone() }
    }
}

/// A [`ReplicaNode`] in a message between replicas. Feature level 1 knows these two fields, so kind and
/// zone stand behind the address, parted by NUL, which no URL holds; and a message that has them is of a
/// version that level 1 refuses.
#[derive(Serialize, Deserialize)]
struct WireNode {
    name: String,
    address: String,
}

impl From<ReplicaNode> for WireNode {
    fn from(node: ReplicaNode) -> Self {
        let address = if node.is_plain() {
            node.address
        } else {
            [&node.address, node.kind.name(), node.zone.as_deref().unwrap_or_default()].join("\0")
        };
        Self { name: node.name, address }
    }
}

impl TryFrom<WireNode> for ReplicaNode {
    type Error = String;

    fn try_from(wire: WireNode) -> Result<Self, String> {
        let mut parts = wire.address.split('\0');
        let address = parts.next().unwrap_or_default().to_owned();
        let kind = match parts.next() {
            None | Some("voter") => MemberKind::Voter,
            Some("edge") => MemberKind::Edge,
            Some(other) => return Err(format!("unknown kind of member `{other}`")),
        };
        let zone = parts.next().filter(|zone| !zone.is_empty()).map(ToOwned::to_owned);
        if parts.next().is_some() {
            return Err("a member's address has too many parts".to_owned());
        }
        Ok(Self { name: wire.name, address, kind, zone })
    }
}

/// What openraft runs on. A simulated one differs in its dice, and in that whoever waits is woken in turn.
#[cfg(not(feature = "simulation"))]
type Runtime = openraft::impls::TokioRuntime;
#[cfg(feature = "simulation")]
type Runtime = crate::simulation::Runtime;

openraft::declare_raft_types!(
    /// The types that Tercet runs openraft with.
    pub TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = NodeId,
        Node = ReplicaNode,
        AsyncRuntime = Runtime,
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
    pub(crate) type WatchReceiver<T> = openraft::alias::WatchReceiverOf<TypeConfig, T>;
    pub(crate) type WatchSender<T> = openraft::alias::WatchSenderOf<TypeConfig, T>;
}
