//! What this crate writes to disk, and the conversions from and to openraft's types.
//!
//! openraft is an alpha whose structs change between releases, so none of them is ever serialised to
//! disk; these records are ours. Fields never change: a new shape is a new schema version.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};
use tercet_storage::{Schema, StorageError};

use crate::command::Proposal;
use crate::type_config::alias::{
    Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
};
use crate::type_config::{NodeId, ReplicaNode};

pub(crate) const ENTRY: Schema = Schema { id: 101, version: 1, name: "raft log entry" };
pub(crate) const VOTE: Schema = Schema { id: 102, version: 1, name: "raft vote" };
pub(crate) const LOG_ID: Schema = Schema { id: 103, version: 1, name: "raft log id" };
pub(crate) const MEMBERSHIP: Schema = Schema { id: 104, version: 1, name: "raft membership" };
pub(crate) const SNAPSHOT_META: Schema = Schema { id: 105, version: 1, name: "raft snapshot meta" };

/// (term, leader, index): the name of one log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdRecord {
    term: u64,
    leader: NodeId,
    index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    term: u64,
    candidate: NodeId,
    committed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    log_id: LogIdRecord,
    payload: PayloadRecord,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is nearly every entry; it lives for one encoding only"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum PayloadRecord {
    Blank,
    Command(Proposal),
    Membership(MembershipRecord),
}

/// One voter set, or two while a joint change is under way; and every member's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MembershipRecord {
    voter_sets: Vec<Vec<NodeId>>,
    nodes: Vec<(NodeId, ReplicaRecord)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReplicaRecord {
    name: String,
    address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembershipRecord {
    log_id: Option<LogIdRecord>,
    membership: MembershipRecord,
}

/// What a snapshot contains, without the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotMetaRecord {
    last_log_id: Option<LogIdRecord>,
    membership: StoredMembershipRecord,
}

impl From<&LogId> for LogIdRecord {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        Self::new(LeaderId { term: record.term, node_id: record.leader }, record.index)
    }
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            candidate: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        Self {
            leader_id: LeaderId { term: record.term, node_id: record.candidate },
            committed: record.committed,
        }
    }
}

impl From<Entry> for EntryRecord {
    fn from(entry: Entry) -> Self {
        let payload = match entry.payload {
            Payload::Blank => PayloadRecord::Blank,
            Payload::Normal(proposal) => PayloadRecord::Command(proposal),
            Payload::Membership(membership) => PayloadRecord::Membership((&membership).into()),
        };
        Self { log_id: (&entry.log_id).into(), payload }
    }
}

impl EntryRecord {
    /// The entry that openraft knows. (`TryFrom` would clash with openraft's blanket impls.)
    pub(crate) fn into_entry(self) -> io::Result<Entry> {
        let payload = match self.payload {
            PayloadRecord::Blank => Payload::Blank,
            PayloadRecord::Command(proposal) => Payload::Normal(proposal),
            PayloadRecord::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(Entry { log_id: self.log_id.into(), payload })
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        Self {
            voter_sets: membership
                .get_joint_config()
                .iter()
                .map(|set| set.iter().copied().collect())
                .collect(),
            nodes: membership
                .nodes()
                .map(|(id, node)| {
                    let record =
                        ReplicaRecord { name: node.name.clone(), address: node.address.clone() };
                    (*id, record)
                })
                .collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = io::Error;

    fn try_from(record: MembershipRecord) -> Result<Self, io::Error> {
        let voter_sets: Vec<BTreeSet<NodeId>> =
            record.voter_sets.into_iter().map(|set| set.into_iter().collect()).collect();
        let nodes: BTreeMap<NodeId, ReplicaNode> = record
            .nodes
            .into_iter()
            .map(|(id, node)| (id, ReplicaNode { name: node.name, address: node.address }))
            .collect();
        // The empty membership of a replica that was never added has no voter set, which openraft's
        // checked constructor refuses.
        if voter_sets.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(voter_sets, nodes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }
}

impl From<&StoredMembership> for StoredMembershipRecord {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            log_id: stored.log_id().as_ref().map(LogIdRecord::from),
            membership: stored.membership().into(),
        }
    }
}

impl TryFrom<StoredMembershipRecord> for StoredMembership {
    type Error = io::Error;

    fn try_from(record: StoredMembershipRecord) -> Result<Self, io::Error> {
        Ok(Self::new(record.log_id.map(LogId::from), record.membership.try_into()?))
    }
}

impl From<&SnapshotMeta> for SnapshotMetaRecord {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last_log_id: meta.last_log_id.as_ref().map(LogIdRecord::from),
            membership: (&meta.last_membership).into(),
        }
    }
}

impl TryFrom<SnapshotMetaRecord> for SnapshotMeta {
    type Error = io::Error;

    fn try_from(record: SnapshotMetaRecord) -> Result<Self, io::Error> {
        Ok(Self {
            last_log_id: record.last_log_id.map(LogId::from),
            last_membership: record.membership.try_into()?,
        })
    }
}

/// openraft's stores speak `io::Error`.
pub(crate) fn to_io(error: impl Into<StorageError>) -> io::Error {
    io::Error::other(error.into())
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
