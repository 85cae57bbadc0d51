//! What this crate writes to disk, and the conversions from and to openraft's types.
//!
//! openraft is an alpha whose structs change between releases, so none of them is ever serialised to
//! disk; these records are ours. Fields never change: a new shape is a new schema version.
//!
//! What holds a membership has two versions. The first knows names and addresses, the second kinds and
//! zones too. The first is still what is written for a membership that has neither, so that older members
//! can read all there is while the cluster is at feature level 1.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};
use tercet_storage::codec::{Envelope, encode};
use tercet_storage::{Schema, StorageError};

use crate::command::Proposal;
use crate::type_config::alias::{
    Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
};
use crate::type_config::{MemberKind, NodeId, ReplicaNode};

pub(crate) const ENTRY: Schema = Schema { id: 101, version: 2, name: "raft log entry" };
pub(crate) const VOTE: Schema = Schema { id: 102, version: 1, name: "raft vote" };
pub(crate) const LOG_ID: Schema = Schema { id: 103, version: 1, name: "raft log id" };
pub(crate) const MEMBERSHIP: Schema = Schema { id: 104, version: 2, name: "raft membership" };
pub(crate) const SNAPSHOT_META: Schema = Schema { id: 105, version: 2, name: "raft snapshot meta" };

/// A schema as it was before memberships had kinds and zones.
pub(crate) const fn without_kinds(schema: Schema) -> Schema {
    Schema { version: 1, ..schema }
}

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
struct EntryRecord {
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
    Membership(MembershipRecord<ReplicaRecord>),
    /// Version 2 only.
    MembershipOfKinds(MembershipRecord<KindRecord>),
}

/// One voter set, or two while a joint change is under way; and what is known of every member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipRecord<R> {
    voter_sets: Vec<Vec<NodeId>>,
    nodes: Vec<(NodeId, R)>,
}

/// Version 1 of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaRecord {
    name: String,
    address: String,
}

/// Version 2 of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KindRecord {
    name: String,
    address: String,
    edge: bool,
    zone: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembershipRecord<R> {
    log_id: Option<LogIdRecord>,
    membership: MembershipRecord<R>,
}

/// What a snapshot contains, without the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotMetaRecord<R> {
    last_log_id: Option<LogIdRecord>,
    membership: StoredMembershipRecord<R>,
}

/// Whether version 1 says everything about this membership.
pub(crate) fn is_plain(membership: &Membership) -> bool {
    membership.nodes().all(|(_, node)| node.is_plain())
}

pub(crate) fn encode_membership(stored: &StoredMembership) -> Result<Vec<u8>, StorageError> {
    Ok(if is_plain(stored.membership()) {
        encode(without_kinds(MEMBERSHIP), &StoredMembershipRecord::<ReplicaRecord>::from(stored))?
    } else {
        encode(MEMBERSHIP, &StoredMembershipRecord::<KindRecord>::from(stored))?
    })
}

pub(crate) fn decode_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    let envelope = Envelope::open(MEMBERSHIP, bytes).map_err(to_io)?;
    if envelope.version < MEMBERSHIP.version {
        let record: StoredMembershipRecord<ReplicaRecord> = envelope.decode().map_err(to_io)?;
        return record.try_into();
    }
    let record: StoredMembershipRecord<KindRecord> = envelope.decode().map_err(to_io)?;
    record.try_into()
}

pub(crate) fn encode_snapshot_meta(meta: &SnapshotMeta) -> Result<Vec<u8>, StorageError> {
    Ok(if is_plain(meta.last_membership.membership()) {
        encode(without_kinds(SNAPSHOT_META), &SnapshotMetaRecord::<ReplicaRecord>::from(meta))?
    } else {
        encode(SNAPSHOT_META, &SnapshotMetaRecord::<KindRecord>::from(meta))?
    })
}

pub(crate) fn decode_snapshot_meta(bytes: &[u8]) -> io::Result<SnapshotMeta> {
    let envelope = Envelope::open(SNAPSHOT_META, bytes).map_err(to_io)?;
    if envelope.version < SNAPSHOT_META.version {
        let record: SnapshotMetaRecord<ReplicaRecord> = envelope.decode().map_err(to_io)?;
        return record.try_into();
    }
    let record: SnapshotMetaRecord<KindRecord> = envelope.decode().map_err(to_io)?;
    record.try_into()
}

pub(crate) fn encode_entry(entry: Entry) -> Result<Vec<u8>, StorageError> {
    let record = EntryRecord::from(entry);
    let schema = match record.payload {
        PayloadRecord::MembershipOfKinds(_) => ENTRY,
        _ => without_kinds(ENTRY),
    };
    Ok(encode(schema, &record)?)
}

pub(crate) fn decode_entry(bytes: &[u8]) -> io::Result<Entry> {
    // The second version has one kind of payload more, and is otherwise the first.
    let envelope = Envelope::open(ENTRY, bytes).map_err(to_io)?;
    let record: EntryRecord = envelope.decode().map_err(to_io)?;
    record.into_entry()
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
            Payload::Membership(membership) if is_plain(&membership) => {
                PayloadRecord::Membership((&membership).into())
            }
            Payload::Membership(membership) => {
                PayloadRecord::MembershipOfKinds((&membership).into())
            }
        };
        Self { log_id: (&entry.log_id).into(), payload }
    }
}

impl EntryRecord {
    /// The entry that openraft knows. (`TryFrom` would clash with openraft's blanket impls.)
    fn into_entry(self) -> io::Result<Entry> {
        let payload = match self.payload {
            PayloadRecord::Blank => Payload::Blank,
            PayloadRecord::Command(proposal) => Payload::Normal(proposal),
            PayloadRecord::Membership(membership) => Payload::Membership(membership.try_into()?),
            PayloadRecord::MembershipOfKinds(membership) => {
                Payload::Membership(membership.try_into()?)
            }
        };
        Ok(Entry { log_id: self.log_id.into(), payload })
    }
}

impl From<&ReplicaNode> for ReplicaRecord {
    fn from(node: &ReplicaNode) -> Self {
        Self { name: node.name.clone(), address: node.address.clone() }
    }
}

impl From<ReplicaRecord> for ReplicaNode {
    fn from(record: ReplicaRecord) -> Self {
        Self { name: record.name, address: record.address, kind: MemberKind::Voter, zone: None }
    }
}

impl From<&ReplicaNode> for KindRecord {
    fn from(node: &ReplicaNode) -> Self {
        Self {
            name: node.name.clone(),
            address: node.address.clone(),
            edge: node.kind == MemberKind::Edge,
            zone: node.zone.clone(),
        }
    }
}

impl From<KindRecord> for ReplicaNode {
    fn from(record: KindRecord) -> Self {
        let kind = if record.edge { MemberKind::Edge } else { MemberKind::Voter };
        Self { name: record.name, address: record.address, kind, zone: record.zone }
    }
}

impl<R: for<'a> From<&'a ReplicaNode>> From<&Membership> for MembershipRecord<R> {
    fn from(membership: &Membership) -> Self {
        Self {
            voter_sets: membership
                .get_joint_config()
                .iter()
                .map(|set| set.iter().copied().collect())
                .collect(),
            nodes: membership.nodes().map(|(id, node)| (*id, R::from(node))).collect(),
        }
    }
}

impl<R: Into<ReplicaNode>> TryFrom<MembershipRecord<R>> for Membership {
    type Error = io::Error;

    fn try_from(record: MembershipRecord<R>) -> Result<Self, io::Error> {
        let voter_sets: Vec<BTreeSet<NodeId>> =
            record.voter_sets.into_iter().map(|set| set.into_iter().collect()).collect();
        let nodes: BTreeMap<NodeId, ReplicaNode> =
            record.nodes.into_iter().map(|(id, node)| (id, node.into())).collect();
        // The empty membership of a replica that was never added has no voter set, which openraft's
        // checked constructor refuses.
        if voter_sets.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(voter_sets, nodes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }
}

impl<R: for<'a> From<&'a ReplicaNode>> From<&StoredMembership> for StoredMembershipRecord<R> {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            log_id: stored.log_id().as_ref().map(LogIdRecord::from),
            membership: stored.membership().into(),
        }
    }
}

impl<R: Into<ReplicaNode>> TryFrom<StoredMembershipRecord<R>> for StoredMembership {
    type Error = io::Error;

    fn try_from(record: StoredMembershipRecord<R>) -> Result<Self, io::Error> {
        Ok(Self::new(record.log_id.map(LogId::from), record.membership.try_into()?))
    }
}

impl<R: for<'a> From<&'a ReplicaNode>> From<&SnapshotMeta> for SnapshotMetaRecord<R> {
    fn from(meta: &SnapshotMeta) -> Self {
        Self {
            last_log_id: meta.last_log_id.as_ref().map(LogIdRecord::from),
            membership: (&meta.last_membership).into(),
        }
    }
}

impl<R: Into<ReplicaNode>> TryFrom<SnapshotMetaRecord<R>> for SnapshotMeta {
    type Error = io::Error;

    fn try_from(record: SnapshotMetaRecord<R>) -> Result<Self, io::Error> {
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
