//! Doors for the fuzz targets in `chaos/fuzz`: what reads bytes of a disk or of a peer, and nothing
//! else.
//!
//! No interface: it changes with the readers behind it. Each door answers what was read, written again.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use tercet_storage::codec::{decode, encode};

use crate::command::Command;
use crate::confirmed::Confirmed;
use crate::network::{
    JoinAnswer, JoinRequest, Message, ProposeAnswer, ReadIndexAnswer, RpcKind, decode_answer,
    decode_append, decode_message, encode_answer, encode_append, encode_message, receive_snapshot,
};
use crate::records::{
    LOG_ID, LogIdRecord, VOTE, VoteRecord, decode_entry, decode_membership, decode_snapshot_meta,
    encode_entry, encode_membership, encode_snapshot_meta,
};
use crate::type_config::alias::{LogId, Vote};
use crate::type_config::{NodeId, TypeConfig};

/// Reads bytes as every record of the Raft log and of snapshots, by way of openraft's own types.
#[must_use]
pub fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let entry = decode_entry(bytes).ok().and_then(|entry| encode_entry(entry).ok());
    let vote = decode::<VoteRecord>(VOTE, bytes)
        .ok()
        .and_then(|record| encode(VOTE, &VoteRecord::from(&Vote::from(record))).ok());
    let log_id = decode::<LogIdRecord>(LOG_ID, bytes)
        .ok()
        .and_then(|record| encode(LOG_ID, &LogIdRecord::from(&LogId::from(record))).ok());
    let membership =
        decode_membership(bytes).ok().and_then(|stored| encode_membership(&stored).ok());
    let snapshot =
        decode_snapshot_meta(bytes).ok().and_then(|meta| encode_snapshot_meta(&meta).ok());
    [entry, vote, log_id, membership, snapshot].into_iter().flatten().collect()
}

/// Reads bytes as the request of every RPC.
#[must_use]
pub fn requests(bytes: &[u8]) -> Vec<Bytes> {
    RpcKind::ALL.into_iter().filter_map(|rpc| request(rpc, bytes)).collect()
}

fn request(rpc: RpcKind, bytes: &[u8]) -> Option<Bytes> {
    match rpc {
        RpcKind::Append => encode_append(&decode_append(bytes).ok()?).ok(),
        RpcKind::Vote | RpcKind::PreVote => again::<VoteRequest<TypeConfig>>(rpc, bytes),
        RpcKind::TransferLeader => again::<TransferLeaderRequest<TypeConfig>>(rpc, bytes),
        RpcKind::ReadIndex => again::<()>(rpc, bytes),
        RpcKind::Propose => again::<Command>(rpc, bytes),
        RpcKind::Join => again::<JoinRequest>(rpc, bytes),
        RpcKind::Confirmed => again::<NodeId>(rpc, bytes),
    }
}

fn again<T: Serialize + DeserializeOwned + Message>(rpc: RpcKind, bytes: &[u8]) -> Option<Bytes> {
    let message: T = decode_message(rpc, bytes).ok()?;
    encode_message(rpc, &message).ok()
}

/// Reads bytes as the answer of every RPC.
#[must_use]
pub fn answers(bytes: &[u8]) -> Vec<Bytes> {
    [
        answer::<AppendEntriesResponse<TypeConfig>>(bytes),
        answer::<VoteResponse<TypeConfig>>(bytes),
        answer::<TransferLeaderResponse<TypeConfig>>(bytes),
        answer::<SnapshotResponse<TypeConfig>>(bytes),
        answer::<ReadIndexAnswer>(bytes),
        answer::<ProposeAnswer>(bytes),
        answer::<JoinAnswer>(bytes),
        answer::<Option<Confirmed>>(bytes),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn answer<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Bytes> {
    // Every answer has one schema: the kind is for messages only.
    let answer: T = decode_answer(RpcKind::Append, bytes).ok()?;
    encode_answer(RpcKind::Append, &answer).ok()
}

/// Receives bytes as a snapshot in chunks of `chunk_bytes` below the folder `snapshots`, and lets go of it.
///
/// # Errors
/// The stream is no snapshot.
pub fn snapshot(snapshots: &Path, bytes: &[u8], chunk_bytes: usize) -> io::Result<()> {
    let chunks: Vec<io::Result<Bytes>> =
        bytes.chunks(chunk_bytes.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let stream = futures_util::stream::iter(chunks).boxed();
    tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(receive_snapshot(snapshots, stream))
        .map(drop)
}
