//! Messages between replicas: what they say, and who carries them.

mod client;
mod server;
mod snapshot;
mod wire;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::type_config::NodeId;

pub(crate) use client::NetworkFactory;
pub(crate) use snapshot::receive_snapshot;
#[cfg(test)]
pub(crate) use wire::AppendMessage;
pub(crate) use wire::{
    JoinAnswer, JoinRequest, Message, ProposeAnswer, ReadIndexAnswer, decode_answer, decode_append,
    decode_message, encode_answer, encode_append, encode_message,
};

/// Carries bytes to another replica's peer listener. The caller of this crate supplies it; tests
/// supply one without sockets.
pub trait Transport: Send + Sync + 'static {
    /// Sends one RPC and waits for its answer, at most `deadline`.
    fn call(
        &self,
        target: &Target,
        rpc: RpcKind,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>>;

    /// Streams a snapshot and waits until it is installed there.
    fn send_snapshot(
        &self,
        target: &Target,
        body: BoxStream<'static, io::Result<Bytes>>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>>;

    /// Asks the replica at a peer address who it is.
    fn hello(
        &self,
        address: &str,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Hello, TransportError>>;

    /// Tells a replica that waits with an empty disk which cluster to join.
    fn invite(
        &self,
        address: &str,
        invitation: &Invitation,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<(), TransportError>>;
}

/// The replica an RPC is meant for. The receiver refuses it if it is not that replica: after a
/// replacement, an address may belong to a new id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The id it must have.
    pub node_id: NodeId,
    /// Its name, for messages.
    pub name: String,
    /// Base URL of its peer listener.
    pub address: String,
}

/// Who a replica is, as it says itself on `GET /peer/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its configured name.
    pub name: String,
    /// Its cluster; `None` on an empty disk.
    pub cluster_id: Option<String>,
    /// Its Raft id; `None` on an empty disk.
    pub node_id: Option<NodeId>,
    /// The feature level that its binary takes part with; one that does not say has 1.
    #[serde(default = "first_level")]
    pub feature_level: u32,
}

fn first_level() -> u32 {
    1
}

/// What an operator has the leader say to a replica that waits with an empty disk, on
/// `POST /peer/invite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The cluster to join.
    pub cluster_id: String,
    /// The name that the replica must have.
    pub name: String,
}

/// The RPCs of the peer listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcKind {
    /// Raft AppendEntries, heartbeats included.
    Append,
    /// Raft RequestVote.
    Vote,
    /// Pre-vote: would you vote for me?
    PreVote,
    /// Stand for election now: the leader hands over.
    TransferLeader,
    /// What is the read index? Asked by a follower of the leader.
    ReadIndex,
    /// Propose this command. Forwarded by a follower to the leader.
    Propose,
    /// Let me in. Asked by a new replica.
    Join,
    /// What have I confirmed to you? Asked by a replica that starts.
    Confirmed,
}

impl RpcKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Append,
        Self::Vote,
        Self::PreVote,
        Self::TransferLeader,
        Self::ReadIndex,
        Self::Propose,
        Self::Join,
        Self::Confirmed,
    ];

    /// The path segment behind `/raft/`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "pre-vote",
            Self::TransferLeader => "transfer-leader",
            Self::ReadIndex => "read-index",
            Self::Propose => "propose",
            Self::Join => "join",
            Self::Confirmed => "confirmed",
        }
    }
}

impl fmt::Display for RpcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

impl FromStr for RpcKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.path() == text)
            .ok_or_else(|| format!("unknown Raft RPC `{text}`"))
    }
}

/// Why a message got no answer.
#[derive(Debug, Clone, Error)]
pub enum TransportError {
    /// It was surely not received: refused connection, failed name lookup or TLS handshake.
    #[error("not sent: {0}")]
    NotSent(String),
    /// No answer in time; it may have been received.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Answered with an error.
    #[error("refused with status {status}: {message}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The body, as text.
        message: String,
    },
    /// The connection broke after the message was sent.
    #[error("connection broke: {0}")]
    Broken(String),
}
