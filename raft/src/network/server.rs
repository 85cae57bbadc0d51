//! What this replica answers to the others.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tercet_storage::Room;

use super::wire::{AppendMessage, decode_append, decode_message, encode_answer};
use super::{JoinRequest, RpcKind, receive_snapshot};
use crate::blocking::blocking;
use crate::command::Command;
use crate::confirmed::Confirmed;
use crate::consensus::Inner;
use crate::error::RpcError;
use crate::machine::verify_checkpoint;
use crate::type_config::alias::Snapshot;
use crate::type_config::{NodeId, TypeConfig};

/// A chunk of a snapshot must arrive within this time of the one before.
const SNAPSHOT_CHUNK_DEADLINE: Duration = Duration::from_secs(30);

impl Inner {
    /// Answers one RPC. The transport has checked that the message is meant for this replica.
    pub(crate) async fn handle_rpc(&self, rpc: RpcKind, body: Bytes) -> Result<Bytes, RpcError> {
        match rpc {
            RpcKind::Append => {
                let AppendMessage { request, synced } = decode_append(&body)?;
                // A leader's vote is synced before it asks for those of others.
                let confirmed = Confirmed { leader: request.vote.leader_id, log: synced };
                self.confirmations.note(request.vote.leader_id.node_id, confirmed);
                self.room_to_append(&request)?;
                let answer = self.raft.append_entries(request).await.map_err(unavailable)?;
                encode_answer(rpc, &answer)
            }
            RpcKind::Vote => {
                let request: VoteRequest<TypeConfig> = decode_message(rpc, &body)?;
                // It has synced its own vote before it asks, and with it all that its log had; nobody cuts that under this vote.
                let leader = request.vote.leader_id;
                let confirmed = Confirmed { leader, log: request.last_log_id };
                self.confirmations.note(leader.node_id, confirmed);
                self.room_to_vote()?;
                let answer = self.raft.vote(request).await.map_err(unavailable)?;
                encode_answer(rpc, &answer)
            }
            RpcKind::PreVote => {
                let request: VoteRequest<TypeConfig> = decode_message(rpc, &body)?;
                // A promise that could not be kept a moment later would only raise terms.
                self.room_to_vote()?;
                let answer = self.raft.pre_vote(request).await.map_err(unavailable)?;
                encode_answer(rpc, &answer)
            }
            RpcKind::TransferLeader => {
                let request: TransferLeaderRequest<TypeConfig> = decode_message(rpc, &body)?;
                self.room_to_lead()?;
                let answer =
                    self.raft.handle_transfer_leader(request).await.map_err(unavailable)?;
                encode_answer(rpc, &answer)
            }
            RpcKind::ReadIndex => {
                let () = decode_message(rpc, &body)?;
                encode_answer(rpc, &self.answer_read_index().await)
            }
            RpcKind::Propose => {
                let command: Command = decode_message(rpc, &body)?;
                encode_answer(rpc, &self.answer_propose(command).await)
            }
            RpcKind::Join => {
                let request: JoinRequest = decode_message(rpc, &body)?;
                encode_answer(rpc, &self.answer_join(request).await)
            }
            RpcKind::Confirmed => {
                let asking: NodeId = decode_message(rpc, &body)?;
                encode_answer(rpc, &self.confirmations.of(asking))
            }
        }
    }

    /// Receives and installs a snapshot from the leader.
    pub(crate) async fn handle_snapshot(
        &self,
        body: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<Bytes, RpcError> {
        if self.headroom.room() < Room::Ample {
            return Err(RpcError::NoSpace(self.headroom.describe()));
        }
        let body = with_chunk_deadline(body);
        let malformed = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                RpcError::NoSpace(error.to_string())
            }
            _ => RpcError::Malformed { rpc: "snapshot", reason: error.to_string() },
        };
        let (vote, meta, dir) =
            receive_snapshot(&self.data.snapshots(), body).await.map_err(malformed)?;
        let (received, announced) = (dir.clone(), meta.clone());
        blocking(move || verify_checkpoint(received.path(), &announced))
            .await
            .map_err(unavailable)?
            .map_err(malformed)?;
        tracing::info!(last = ?meta.last_log_id, "installing a snapshot from the leader");
        let snapshot = Snapshot { meta, snapshot: dir };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(unavailable)?;
        encode_answer(RpcKind::Append, &answer)
    }
}

fn with_chunk_deadline(
    body: BoxStream<'static, io::Result<Bytes>>,
) -> BoxStream<'static, io::Result<Bytes>> {
    use futures_util::StreamExt;
    futures_util::stream::unfold(body, |mut body| async move {
        match tokio::time::timeout(SNAPSHOT_CHUNK_DEADLINE, body.next()).await {
            Ok(chunk) => chunk.map(|chunk| (chunk, body)),
            Err(_) => {
                let stalled =
                    io::Error::new(io::ErrorKind::TimedOut, "the snapshot stream stalled");
                Some((Err(stalled), futures_util::stream::empty().boxed()))
            }
        }
    })
    .boxed()
}

fn unavailable(error: impl std::fmt::Display) -> RpcError {
    RpcError::Unavailable(error.to_string())
}
