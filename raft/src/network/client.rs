//! openraft's view of another replica.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::snapshot::send_stream;
use super::wire::{AppendMessage, Message, decode_answer, encode_append, encode_message};
use super::{RpcKind, Target, Transport, TransportError};
use crate::confirmed::{Confirmations, Confirmed, OwnLog};
use crate::latency::{Latency, PeerLatencies};
use crate::machine::SnapshotDir;
use crate::room::FullPeers;
use crate::type_config::alias::{LeaderId, LogId, Snapshot, Vote};
use crate::type_config::{NodeId, ReplicaNode, TypeConfig};

/// No Raft RPC is given up earlier than this, however short the heartbeat: an answer includes an
/// fsync on the other side, and a busy disk takes its time.
const DEADLINE_MIN: Duration = Duration::from_millis(1500);

/// `507 Insufficient Storage`: how a transport says [`crate::RpcError::NoSpace`].
const NO_SPACE_STATUS: u16 = 507;

/// Makes one [`PeerClient`] per member.
pub(crate) struct NetworkFactory {
    pub(crate) own_id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) full_peers: FullPeers,
    pub(crate) latencies: PeerLatencies,
    pub(crate) confirmations: Confirmations,
    pub(crate) own_log: OwnLog,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &ReplicaNode) -> PeerClient {
        PeerClient {
            own_id: self.own_id,
            target: Target {
                node_id: target,
                name: node.name.clone(),
                address: node.address.clone(),
            },
            transport: Arc::clone(&self.transport),
            full_peers: self.full_peers.clone(),
            latency: self.latencies.of(target),
            confirmations: self.confirmations.clone(),
            own_log: self.own_log.clone(),
        }
    }
}

pub(crate) struct PeerClient {
    own_id: NodeId,
    target: Target,
    transport: Arc<dyn Transport>,
    full_peers: FullPeers,
    /// How long it takes to confirm entries.
    latency: Latency,
    /// What it has confirmed.
    confirmations: Confirmations,
    own_log: OwnLog,
}

impl PeerClient {
    async fn call<Q: Serialize + Message, A: DeserializeOwned>(
        &self,
        rpc: RpcKind,
        action: RPCTypes,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let body = encode_message(rpc, request).map_err(|error| network(&error))?;
        self.send(rpc, action, body, option).await
    }

    async fn send<A: DeserializeOwned>(
        &self,
        rpc: RpcKind,
        action: RPCTypes,
        body: Bytes,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let deadline = option.hard_ttl().max(DEADLINE_MIN);
        let answer = self
            .transport
            .call(&self.target, rpc, body, deadline)
            .await
            .map_err(|error| self.rpc_error(action, error))?;
        decode_answer(rpc, &answer).map_err(|error| network(&error))
    }

    /// Its vote for this one is on its disk, and its log up to there.
    fn confirmed(&self, leader: LeaderId, log: Option<LogId>) {
        self.confirmations.note(self.target.node_id, Confirmed { leader, log });
    }

    fn rpc_error(&self, action: RPCTypes, error: TransportError) -> RPCError<TypeConfig> {
        if let TransportError::Rejected { status: NO_SPACE_STATUS, .. } = &error {
            self.full_peers.refused(self.target.node_id);
        }
        match error {
            // openraft backs off from an unreachable peer instead of hammering it.
            TransportError::NotSent(_) | TransportError::Rejected { .. } => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            TransportError::TimedOut(timeout) => RPCError::Timeout(Timeout {
                action,
                id: self.own_id,
                target: self.target.node_id,
                timeout,
            }),
            TransportError::Broken(_) => network(&error),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let asked = Instant::now();
        let leader = rpc.vote.leader_id;
        let message = AppendMessage { request: rpc, synced: self.own_log.synced_under(leader) };
        let body = encode_append(&message).map_err(|error| network(&error))?;
        let rpc = message.request;
        let answer = self.send(RpcKind::Append, RPCTypes::AppendEntries, body, &option).await?;
        // A heartbeat writes nothing, so that it was taken says nothing.
        if !rpc.entries.is_empty() {
            self.latency.record(asked.elapsed());
            self.full_peers.took(self.target.node_id);
        }
        match &answer {
            AppendEntriesResponse::Success => {
                self.confirmed(
                    leader,
                    rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id),
                );
            }
            AppendEntriesResponse::PartialSuccess(until) => self.confirmed(leader, *until),
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer: VoteResponse<TypeConfig> =
            self.call(RpcKind::Vote, RPCTypes::Vote, &rpc, &option).await?;
        if answer.vote_granted {
            // Not its log: this leader may replace the end of it under this very vote.
            self.confirmed(rpc.vote.leader_id, None);
        }
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RpcKind::PreVote, RPCTypes::Vote, &rpc, &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RpcKind::TransferLeader, RPCTypes::TransferLeader, &request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = async {
            let body = send_stream(vote, snapshot).await.map_err(|error| network(&error))?;
            let answer = self
                .transport
                .send_snapshot(&self.target, body, option.hard_ttl())
                .await
                .map_err(|error| self.rpc_error(RPCTypes::InstallSnapshot, error))?;
            let answer: SnapshotResponse<TypeConfig> =
                decode_answer(RpcKind::Append, &answer).map_err(|error| network(&error))?;
            if answer.vote == vote {
                // Not how far: one that has the snapshot's entries answers before they are synced. The next append tells.
                self.confirmed(vote.leader_id, None);
            }
            Ok(answer)
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => sent.map_err(|error: RPCError<TypeConfig>| error.into()),
        }
    }
}

fn network<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}
