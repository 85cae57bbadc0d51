//! The messages, as bytes.
//!
//! They carry openraft's own structs: unlike the disk, a connection never outlives the process. Every
//! message is in the record envelope, so a damaged or foreign one is refused, not misread.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tercet_storage::Schema;
use tercet_storage::codec::{Envelope, decode, encode};

use super::RpcKind;
use crate::command::Command;
use crate::error::RpcError;
use crate::outcome::Outcome;
use crate::records::{is_plain, without_kinds};
use crate::type_config::alias::{LogId, Payload};
use crate::type_config::{NodeId, ReplicaNode, TypeConfig};

/// Newest version of the messages below. A replica refuses newer ones. The first knows neither kinds nor
/// zones of members, and is what is sent as long as there is nothing to say about them; and nothing of what a
/// leader has synced.
const VERSION: u8 = 2;

const fn schema(id: u16, name: &'static str) -> Schema {
    Schema { id, version: VERSION, name }
}

/// What may say something that a replica of feature level 1 would misread.
pub(crate) trait Message {
    /// Whether it does not.
    fn is_plain(&self) -> bool {
        true
    }
}

/// AppendEntries, with what its sender has confirmed itself. Version 1 is the request alone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AppendMessage {
    pub(crate) request: AppendEntriesRequest<TypeConfig>,
    /// The end of the leader's own log as it is synced. At feature level 1 nobody says.
    pub(crate) synced: Option<LogId>,
}

fn is_plain_append(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    request.entries.iter().all(|entry| match &entry.payload {
        Payload::Membership(membership) => is_plain(membership),
        Payload::Blank | Payload::Normal(_) => true,
    })
}

impl Message for JoinRequest {
    fn is_plain(&self) -> bool {
        self.node.is_plain()
    }
}

impl Message for VoteRequest<TypeConfig> {}
impl Message for TransferLeaderRequest<TypeConfig> {}
impl Message for Command {}
impl Message for NodeId {}
impl Message for () {}

/// Schema of an RPC's request.
fn request_schema(rpc: RpcKind) -> Schema {
    match rpc {
        RpcKind::Append => schema(201, "append request"),
        RpcKind::Vote => schema(202, "vote request"),
        RpcKind::PreVote => schema(203, "pre-vote request"),
        RpcKind::TransferLeader => schema(204, "transfer-leader request"),
        RpcKind::ReadIndex => schema(205, "read-index request"),
        RpcKind::Propose => schema(206, "propose request"),
        RpcKind::Join => schema(207, "join request"),
        RpcKind::Confirmed => schema(208, "confirmed request"),
    }
}

/// Schema of every answer: which RPC it answers is known from the connection.
pub(super) const ANSWER: Schema = schema(210, "answer");
/// Schema of the head of a snapshot stream.
pub(super) const SNAPSHOT_HEAD: Schema = schema(211, "snapshot head");

/// A new replica asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) node_id: NodeId,
    pub(crate) node: ReplicaNode,
}

/// What the asked replica says to a [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// It is a member in its final role.
    Member,
    /// Under way; ask again.
    Pending(String),
    /// Ask the leader, if one is known.
    NotLeader(Option<(NodeId, ReplicaNode)>),
    /// Not as it is.
    Refused(String),
    /// Never again: its id is retired, and the membership does not name it.
    Gone(String),
}

/// What a leader says to a forwarded command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    Applied(Outcome),
    /// Surely not done here.
    NotLeader,
    /// Accepted, but its fate is unknown.
    Unknown(String),
    /// The disks have no room for it.
    NoSpace(String),
}

/// What a leader says to a read-index question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadIndexAnswer {
    /// Answer from a state that has applied at least this index.
    Index(u64),
    /// Not the leader, or without a quorum.
    NotLeader,
}

pub(crate) fn encode_message<T: Serialize + Message>(
    rpc: RpcKind,
    message: &T,
) -> Result<Bytes, RpcError> {
    let schema = request_schema(rpc);
    let schema = if message.is_plain() { without_kinds(schema) } else { schema };
    encode(schema, message).map(Bytes::from).map_err(|error| malformed(rpc, &error))
}

pub(crate) fn encode_append(message: &AppendMessage) -> Result<Bytes, RpcError> {
    let rpc = RpcKind::Append;
    let schema = request_schema(rpc);
    let encoded = if message.synced.is_none() && is_plain_append(&message.request) {
        encode(without_kinds(schema), &message.request)
    } else {
        encode(schema, message)
    };
    encoded.map(Bytes::from).map_err(|error| malformed(rpc, &error))
}

pub(crate) fn decode_append(bytes: &[u8]) -> Result<AppendMessage, RpcError> {
    let rpc = RpcKind::Append;
    let read = |envelope: Envelope<'_>| match envelope.version {
        1 => Ok(AppendMessage { request: envelope.decode()?, synced: None }),
        _ => envelope.decode(),
    };
    Envelope::open(request_schema(rpc), bytes)
        .and_then(read)
        .map_err(|error| malformed(rpc, &error))
}

pub(crate) fn decode_message<T: DeserializeOwned>(
    rpc: RpcKind,
    bytes: &[u8],
) -> Result<T, RpcError> {
    // Both versions are read alike: a kind and a zone are part of the address.
    Envelope::open(request_schema(rpc), bytes)
        .and_then(Envelope::decode)
        .map_err(|error| malformed(rpc, &error))
}

pub(crate) fn encode_answer<T: Serialize>(rpc: RpcKind, answer: &T) -> Result<Bytes, RpcError> {
    encode(without_kinds(ANSWER), answer).map(Bytes::from).map_err(|error| malformed(rpc, &error))
}

pub(crate) fn decode_answer<T: DeserializeOwned>(
    rpc: RpcKind,
    bytes: &[u8],
) -> Result<T, RpcError> {
    decode(without_kinds(ANSWER), bytes).map_err(|error| malformed(rpc, &error))
}

fn malformed(rpc: RpcKind, reason: &dyn std::fmt::Display) -> RpcError {
    RpcError::Malformed { rpc: rpc.path(), reason: reason.to_string() }
}
