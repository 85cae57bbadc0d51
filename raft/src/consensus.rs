//! One replica's seat in the group.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tercet_storage::{Clock, DataDir, Digest, Meta, StateDb};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::command::Command;
use crate::config::RaftTiming;
use crate::error::{ProposeError, RaftError, RpcError};
use crate::identity::Identity;
use crate::log::LogStore;
use crate::machine::{BlobFeed, Machine, State};
use crate::network::{NetworkFactory, RpcKind, Target, Transport};
use crate::outcome::Outcome;
use crate::read::{self, Freshness, ReadBarrier};
use crate::type_config::alias::Raft;
use crate::type_config::{NodeId, ReplicaNode};
use crate::{InitialMember, membership};

/// What [`Consensus::start`] needs.
pub struct StartOptions {
    /// The replica's data directory, locked by the caller.
    pub data: DataDir,
    /// Who this replica is, from [`bootstrap`](crate::bootstrap).
    pub identity: Identity,
    /// How the others reach it.
    pub node: ReplicaNode,
    /// Where to ask to be let in, as configured.
    pub initial_members: Vec<InitialMember>,
    /// Raft's clock.
    pub timing: RaftTiming,
    /// Carries bytes to the others.
    pub transport: Arc<dyn Transport>,
    /// The time that the leader stamps into commands.
    pub clock: Arc<dyn Clock>,
    /// Receives each blob that the log makes visible, with its size. What does not fit is made up for
    /// by [`Consensus::take_rescan`].
    pub committed_blobs: mpsc::Sender<(Digest, u64)>,
}

/// The role a replica plays in the group now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Orders the log.
    Leader,
    /// Votes and follows.
    Follower,
    /// Follows without a vote.
    Learner,
}

impl Role {
    fn of(state: ServerState) -> Self {
        match state {
            ServerState::Leader => Self::Leader,
            ServerState::Learner => Self::Learner,
            _ => Self::Follower,
        }
    }

    /// The word that `/status` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        }
    }
}

/// A replica as the membership names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its Raft id.
    pub node_id: NodeId,
    /// Base URL of its peer listener.
    pub address: String,
    /// Its role, as far as this replica knows.
    pub role: Role,
    /// The last log index known to be on its disk; only the leader knows it.
    pub matched: Option<u64>,
}

impl Member {
    /// Whom to call to reach this member.
    pub fn target(&self) -> Target {
        Target { node_id: self.node_id, name: self.name.clone(), address: self.address.clone() }
    }
}

/// Where this replica's Raft stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// Current term.
    pub term: u64,
    /// Index of the last applied entry; 0 before the first.
    pub applied: u64,
    /// Index of the last entry in the log; 0 before the first.
    pub last_log: u64,
    /// The leader's name, if one is known and is not known to be silent.
    pub leader: Option<String>,
    /// This replica's role.
    pub role: Role,
    /// This replica is in the membership.
    pub is_member: bool,
    /// Why the group refuses this replica, if it does.
    pub refused: Option<String>,
}

/// One replica's seat in the Raft group. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft,
    pub(crate) identity: Identity,
    pub(crate) node: ReplicaNode,
    pub(crate) data: DataDir,
    pub(crate) initial_members: Vec<InitialMember>,
    pub(crate) timing: RaftTiming,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) barrier: ReadBarrier,
    pub(crate) applied: watch::Receiver<Option<u64>>,
    pub(crate) state: Arc<State>,
    /// One membership change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) refused: Mutex<Option<String>>,
    blobs: BlobFeed,
    stop: CancellationToken,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Consensus {
    /// Opens the stores, checks that they belong together, and takes part.
    pub async fn start(options: StartOptions) -> Result<Self, RaftError> {
        let StartOptions {
            data,
            identity,
            node,
            initial_members,
            timing,
            transport,
            clock,
            committed_blobs,
        } = options;
        let log_path = data.log();
        if !log_path.join("CURRENT").exists() {
            // `bootstrap` creates the log before the identity, so an identity without a log means
            // that votes and entries are gone.
            return Err(RaftError::LogLost { path: log_path, last_log: 0, applied: 0 });
        }
        let log = LogStore::open(&log_path)?;
        let machine = Machine::open(&data, committed_blobs)?;
        let state = machine.state();
        check_log_against_state(&log, &machine, &data)?;
        let (blobs, applied) = (machine.blob_feed(), machine.watch_applied());
        let network =
            NetworkFactory { own_id: identity.node_id, transport: Arc::clone(&transport) };
        let config = Arc::new(timing.openraft_config(&identity.cluster_id)?);
        if log.has_voted().await.map_err(|error| RaftError::Stopped(error.to_string()))? {
            // openraft forgets across a restart that this replica has just confirmed a leader, and
            // would vote at once. The old leader may still answer reads on the strength of that
            // confirmation, for as long as `READ_LEASE_HEARTBEATS` says: stay silent until then.
            tokio::time::sleep(timing.read_lease()).await;
        }
        let raft = Raft::new(identity.node_id, config, network, log, machine)
            .await
            .map_err(|error| RaftError::Stopped(error.to_string()))?;
        let identity = found_cluster(&raft, identity, &node, &data).await?;
        let (barrier, waiting) = ReadBarrier::new();
        let inner = Arc::new(Inner {
            raft,
            identity,
            node,
            data,
            initial_members,
            timing,
            transport,
            clock,
            barrier,
            applied,
            state,
            changing: tokio::sync::Mutex::new(()),
            refused: Mutex::new(None),
            blobs,
            stop: CancellationToken::new(),
            workers: Mutex::new(Vec::new()),
        });
        let stop = inner.stop.clone();
        let workers = vec![
            tokio::spawn(read::run(Arc::clone(&inner), waiting, stop.clone())),
            tokio::spawn(membership::keep(Arc::clone(&inner), stop)),
        ];
        *inner.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
        Ok(Self { inner })
    }

    /// Proposes a command, here or at the leader, and waits for the group's decision.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.inner.propose(command).await
    }

    /// Waits until local state contains everything acknowledged before the call, at most
    /// [`RaftTiming::read_deadline`]; answers [`Freshness::Stale`] at once while no leader is known
    /// to answer.
    pub async fn read_barrier(&self) -> Freshness {
        self.inner.barrier.pass().await
    }

    /// The barrier for requests that will write: waits through an election, refuses without a
    /// quorum before a byte of the body was taken.
    pub async fn write_barrier(&self) -> Result<(), ProposeError> {
        self.inner.barrier.pass_for_write(self.inner.timing.write_deadline).await
    }

    /// How long no leader has answered this replica; `None` while one does.
    pub fn stale_for(&self) -> Option<Duration> {
        self.inner.barrier.stale_for()
    }

    /// Reads local metadata. Short and synchronous; fails only while a snapshot that could not be
    /// installed ends the process.
    pub fn read<T>(&self, read: impl FnOnce(Meta<'_, StateDb>) -> T) -> io::Result<T> {
        self.inner.state.read(read)
    }

    /// Who this replica is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// All members, voters and learners, ordered by name.
    pub fn members(&self) -> Vec<Member> {
        self.inner.members()
    }

    /// Where Raft stands here.
    pub fn status(&self) -> RaftStatus {
        self.inner.status()
    }

    /// Returns once this replica's role is another one than `role`; never, if Raft has stopped.
    pub async fn role_changed(&self, role: Role) {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if Role::of(metrics.borrow_and_update().state) != role {
                return;
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether blobs were made visible that did not fit into the queue, or came with a snapshot: the
    /// catalogue has to be compared with the disk. Resets the mark.
    pub fn take_rescan(&self) -> bool {
        self.inner.blobs.take_overflow()
    }

    /// Answers a peer's RPC.
    pub async fn handle_rpc(&self, rpc: RpcKind, body: Bytes) -> Result<Bytes, RpcError> {
        self.inner.handle_rpc(rpc, body).await
    }

    /// Receives and installs the leader's snapshot.
    pub async fn handle_snapshot(
        &self,
        body: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<Bytes, RpcError> {
        self.inner.handle_snapshot(body).await
    }

    /// Hands leadership to the voter that is furthest, if this replica leads; waits until another
    /// one leads or the deadline passes.
    pub async fn transfer_leadership(&self, deadline: Duration) {
        self.inner.transfer_leadership(deadline).await;
    }

    /// Stops taking part. Everything acknowledged is on disk before and after.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let workers =
            std::mem::take(&mut *self.inner.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            let _ = worker.await;
        }
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "raft did not stop cleanly");
        }
    }

    /// Returns when Raft has stopped by itself, with the reason: a storage error, or a bug. The
    /// process must end then.
    pub async fn failed(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        loop {
            let stopped = metrics.borrow_and_update().running_state.clone().err();
            if let Some(error) = stopped {
                return error.to_string();
            }
            if metrics.changed().await.is_err() {
                return "raft has stopped".to_owned();
            }
        }
    }
}

impl Inner {
    /// The leader as this replica believes, itself included.
    pub(crate) fn leader(&self) -> Option<Target> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some(Target { node_id: leader, name: node.name.clone(), address: node.address.clone() })
    }

    pub(crate) fn is_leader(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader
    }

    pub(crate) fn voter_count(&self) -> usize {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().count()
    }

    fn members(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: std::collections::BTreeSet<NodeId> = membership.voter_ids().collect();
        let mut members: Vec<Member> = membership
            .nodes()
            .map(|(id, node)| Member {
                name: node.name.clone(),
                node_id: *id,
                address: node.address.clone(),
                role: if metrics.current_leader == Some(*id) {
                    Role::Leader
                } else if voters.contains(id) {
                    Role::Follower
                } else {
                    Role::Learner
                },
                matched: metrics
                    .replication
                    .as_ref()
                    .and_then(|replication| replication.get(id))
                    .and_then(|matched| matched.as_ref().map(|log_id| log_id.index)),
            })
            .collect();
        members.sort_by(|a, b| (&a.name, a.node_id).cmp(&(&b.name, b.node_id)));
        members
    }

    fn status(&self) -> RaftStatus {
        let leader = self.leader().filter(|leader| {
            // While the barrier is stale, the leader we remember is one that does not answer.
            leader.node_id == self.identity.node_id || self.barrier.stale_for().is_none()
        });
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        RaftStatus {
            term: metrics.current_term,
            applied: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            last_log: metrics.last_log_index.unwrap_or(0),
            leader: leader.map(|leader| leader.name),
            role: Role::of(metrics.state),
            is_member: membership.get_node(&self.identity.node_id).is_some(),
            refused: self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    async fn transfer_leadership(&self, deadline: Duration) {
        if !self.is_leader() {
            return;
        }
        let heir = self
            .members()
            .into_iter()
            .filter(|m| m.role == Role::Follower && m.node_id != self.identity.node_id)
            .max_by_key(|member| member.matched);
        let Some(heir) = heir else { return };
        tracing::info!(to = %heir.name, "handing leadership over");
        if let Err(error) = self.raft.trigger().transfer_leader(heir.node_id).await {
            tracing::warn!(%error, "cannot hand leadership over");
            return;
        }
        let end = Instant::now() + deadline;
        let mut metrics = self.raft.metrics();
        while Instant::now() < end {
            let leader = metrics.borrow_and_update().current_leader;
            if leader.is_some_and(|leader| leader != self.identity.node_id) {
                return;
            }
            if let Ok(Err(_)) = tokio::time::timeout_at(end.into(), metrics.changed()).await {
                return; // Raft has stopped: nobody is left to hand over.
            }
        }
        tracing::warn!("nobody took leadership over in time");
    }
}

/// The log must reach as far as the state that was made from it, unless that state came as a
/// snapshot; and the state must reach as far as the log was purged.
fn check_log_against_state(
    log: &LogStore,
    machine: &Machine,
    data: &DataDir,
) -> Result<(), RaftError> {
    let io = |error: io::Error| RaftError::Stopped(error.to_string());
    let applied = *machine.watch_applied().borrow();
    let last_log = log.last_index().map_err(io)?;
    let purged = log.purged_index().map_err(io)?;
    let installed = machine.state().installed_index().map_err(io)?;
    if applied > last_log && applied != installed {
        return Err(RaftError::LogLost {
            path: data.log(),
            last_log: last_log.unwrap_or(0),
            applied: applied.unwrap_or(0),
        });
    }
    if purged > applied {
        return Err(RaftError::StateLost {
            path: data.state(),
            purged: purged.unwrap_or(0),
            applied: applied.unwrap_or(0),
        });
    }
    Ok(())
}

/// The founder initialises the group with itself as the only voter, once. The mark is taken off the
/// identity afterwards, so that a founder whose log was lost can never found the same cluster again.
async fn found_cluster(
    raft: &Raft,
    mut identity: Identity,
    node: &ReplicaNode,
    data: &DataDir,
) -> Result<Identity, RaftError> {
    if !identity.founder {
        return Ok(identity);
    }
    let stopped = |error: &dyn std::fmt::Display| RaftError::Stopped(error.to_string());
    if !raft.is_initialized().await.map_err(|error| stopped(&error))? {
        tracing::info!(cluster = %identity.cluster_id, "founding a new cluster");
        let members = std::collections::BTreeMap::from([(identity.node_id, node.clone())]);
        raft.initialize(members).await.map_err(|error| stopped(&error))?;
    }
    identity.founder = false;
    identity.store(data)?;
    Ok(identity)
}
