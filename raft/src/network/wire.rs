//! The messages, as bytes.
//!
//! They carry openraft's own structs: unlike the disk, a connection never outlives the process. Every
//! message is in the record envelope, so a damaged or foreign one is refused, not misread.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tercet_storage::Schema;
use tercet_storage::codec::{decode, encode};

use super::RpcKind;
use crate::error::RpcError;
use crate::outcome::Outcome;
use crate::type_config::{NodeId, ReplicaNode};

/// Version of the messages below. A replica refuses messages of another version.
const VERSION: u8 = 1;

const fn schema(id: u16, name: &'static str) -> Schema {
    Schema { id, version: VERSION, name }
}

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
    /// Never: its id is retired.
    Refused(String),
}

/// What a leader says to a forwarded command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    Applied(Outcome),
    /// Surely not done here.
    NotLeader,
    /// Accepted, but its fate is unknown.
    Unknown(String),
}

/// What a leader says to a read-index question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadIndexAnswer {
    /// Answer from a state that has applied at least this index.
    Index(u64),
    /// Not the leader, or without a quorum.
    NotLeader,
}

pub(crate) fn encode_message<T: Serialize>(rpc: RpcKind, message: &T) -> Result<Bytes, RpcError> {
    encode(request_schema(rpc), message).map(Bytes::from).map_err(|error| malformed(rpc, &error))
}

pub(crate) fn decode_message<T: DeserializeOwned>(
    rpc: RpcKind,
    bytes: &[u8],
) -> Result<T, RpcError> {
    decode(request_schema(rpc), bytes).map_err(|error| malformed(rpc, &error))
}

pub(crate) fn encode_answer<T: Serialize>(rpc: RpcKind, answer: &T) -> Result<Bytes, RpcError> {
    encode(ANSWER, answer).map(Bytes::from).map_err(|error| malformed(rpc, &error))
}

pub(crate) fn decode_answer<T: DeserializeOwned>(
    rpc: RpcKind,
    bytes: &[u8],
) -> Result<T, RpcError> {
    decode(ANSWER, bytes).map_err(|error| malformed(rpc, &error))
}

fn malformed(rpc: RpcKind, reason: &dyn std::fmt::Display) -> RpcError {
    RpcError::Malformed { rpc: rpc.path(), reason: reason.to_string() }
}
