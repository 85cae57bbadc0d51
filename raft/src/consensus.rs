//! One replica's seat in the group.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tercet_storage::{Clock, DataDir, Digest, Headroom, Meta, Room, StateDb};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Checkpoint;
use crate::command::{Command, Leaving};
use crate::config::RaftTiming;
use crate::error::{ProposeError, RaftError, RpcError};
use crate::identity::Identity;
use crate::latency::{Latency, PeerLatencies};
use crate::log::LogStore;
use crate::machine::{BlobFeed, Collected, CollectedFeed, Machine, State};
use crate::network::{NetworkFactory, RpcKind, Target, Transport};
use crate::outcome::Outcome;
use crate::read::{self, Freshness, ReadBarrier};
use crate::room::FullPeers;
use crate::roster::HEARING_DEADLINE;
use crate::type_config::alias::Raft;
use crate::type_config::{MemberKind, NodeId, ReplicaNode};
use crate::{InitialMember, chores, membership, room};

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
    /// Tells how much room there is for what Raft writes.
    pub headroom: Headroom,
    /// The feature level that this binary takes part with: [`own_feature_level`](crate::own_feature_level).
    pub feature_level: u32,
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
    /// Whether it may vote.
    pub kind: MemberKind,
    /// Where it stands, if that is known.
    pub zone: Option<String>,
    /// Whether it is about to go: nothing new is placed on it.
    pub leaving: Leaving,
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
    /// A membership change is between its two steps. Whoever leads finishes it.
    pub changing_members: bool,
    /// Why the group refuses this replica, if it does.
    pub refused: Option<String>,
    /// The group refuses it for good: it was removed or replaced, and must not serve.
    pub removed: bool,
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
    pub(crate) headroom: Headroom,
    /// Others that refuse entries because their disks are full.
    pub(crate) full_peers: FullPeers,
    pub(crate) barrier: ReadBarrier,
    pub(crate) applied: watch::Receiver<Option<u64>>,
    pub(crate) state: Arc<State>,
    /// What this binary understands.
    pub(crate) feature_level: u32,
    /// One membership change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) refused: Mutex<Option<String>>,
    /// What was last logged about why this replica is not a full member yet.
    pub(crate) told_pending: Mutex<String>,
    /// The group has said that this id is out for good.
    pub(crate) removed: AtomicBool,
    /// How long this replica's log takes to sync.
    pub(crate) fsync: Latency,
    pub(crate) peer_latencies: PeerLatencies,
    blobs: BlobFeed,
    collected: CollectedFeed,
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
            headroom,
            feature_level,
            committed_blobs,
        } = options;
        let log_path = data.log();
        if !log_path.join("CURRENT").exists() {
            // `bootstrap` creates the log before the identity, so an identity without a log means
            // that votes and entries are gone.
            return Err(RaftError::LogLost { path: log_path, last_log: 0, applied: 0 });
        }
        let log = LogStore::open(&log_path)?.watching(headroom.clone());
        let fsync = log.fsync_latency();
        let machine = Machine::open_at(&data, committed_blobs, feature_level)?;
        let state = machine.state();
        check_log_against_state(&log, &machine, &data)?;
        let (blobs, applied) = (machine.blob_feed(), machine.watch_applied());
        let collected = machine.collected_feed();
        let full_peers = FullPeers::default();
        let peer_latencies = PeerLatencies::default();
        let network = NetworkFactory {
            own_id: identity.node_id,
            transport: Arc::clone(&transport),
            full_peers: full_peers.clone(),
            latencies: peer_latencies.clone(),
        };
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
            headroom,
            full_peers,
            barrier,
            applied,
            state,
            feature_level,
            changing: tokio::sync::Mutex::new(()),
            refused: Mutex::new(None),
            told_pending: Mutex::default(),
            removed: AtomicBool::new(false),
            fsync,
            peer_latencies,
            blobs,
            collected,
            stop: CancellationToken::new(),
            workers: Mutex::new(Vec::new()),
        });
        let stop = inner.stop.clone();
        let workers = vec![
            tokio::spawn(read::run(Arc::clone(&inner), waiting, stop.clone())),
            tokio::spawn(room::keep(Arc::clone(&inner), stop.clone())),
            tokio::spawn(chores::keep(Arc::clone(&inner), stop.clone())),
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
    /// quorum, and on a full disk, before a byte of the body was taken.
    pub async fn write_barrier(&self) -> Result<(), ProposeError> {
        self.inner.refuse_writes_when_exhausted()?;
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

    /// A copy of local metadata between two entries, for a backup; fails when the disk does.
    pub async fn checkpoint(&self) -> io::Result<Checkpoint> {
        self.inner.checkpoint().await
    }

    /// Who this replica is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// All members, voters and learners, ordered by name.
    pub fn members(&self) -> Vec<Member> {
        self.inner.members()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// What every member understands, as far as this replica has applied the log. Commands above it are
    /// refused.
    pub fn feature_level(&self) -> u32 {
        self.inner.cluster_level()
    }

    /// How long this replica's disk takes to make Raft's log durable: the mean of the last seconds, or
    /// `None` if hardly anything was written.
    pub fn fsync_latency(&self) -> Option<Duration> {
        self.inner.fsync.mean()
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

    /// Whether [`Consensus::take_rescan`] has something to take.
    pub fn rescan_pending(&self) -> bool {
        self.inner.blobs.has_overflowed()
    }

    /// Whether blobs were made visible that did not fit into the queue, or came with a snapshot: the
    /// catalogue has to be compared with the disk. Resets the mark.
    pub fn take_rescan(&self) -> bool {
        self.inner.blobs.take_overflow()
    }

    /// Waits for blobs that the group forgets, whose files may go. For one worker.
    pub async fn collected(&self) -> Collected {
        self.inner.collected.next().await
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
        self.inner.transfer_leadership(None, deadline).await;
    }

    /// As [`Self::transfer_leadership`], to the voter of this name.
    pub async fn hand_over_to(&self, name: &str, deadline: Duration) {
        self.inner.transfer_leadership(Some(name), deadline).await;
    }

    /// How much room this replica's volume has for what Raft writes.
    pub fn room(&self) -> Room {
        self.inner.headroom.room()
    }

    /// Bytes of the reserve that is given up when the volume is full; 0 once it was.
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.headroom.reserve_bytes()
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

    /// Whether the group has said that this id is out for good.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
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

    /// Whether the member of that name and id is about to go. What cannot be read is taken as no.
    fn leaving(&self, name: &str, node_id: NodeId) -> Leaving {
        let marked = self.state.read(|meta| {
            let current = meta.member(name)?.is_some_and(|member| member.node_id == node_id);
            Ok::<_, tercet_storage::StorageError>(current && meta.leaving(name)?)
        });
        if matches!(marked, Ok(Ok(true))) { Leaving::Yes } else { Leaving::No }
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        let mut members = self.members_without_marks();
        for member in &mut members {
            member.leaving = self.leaving(&member.name, member.node_id);
        }
        members
    }

    /// Apart from the marks: the state may be busy with a snapshot, and Raft waits for its metrics.
    fn members_without_marks(&self) -> Vec<Member> {
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
                kind: node.kind,
                zone: node.zone.clone(),
                leaving: Leaving::No,
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
            changing_members: membership.get_joint_config().len() > 1,
            refused: self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            removed: self.is_removed(),
        }
    }

    async fn transfer_leadership(&self, heir: Option<&str>, deadline: Duration) {
        if !self.is_leader() {
            return;
        }
        let wanted = |candidate: &Target| heir.is_none_or(|name| candidate.name == name);
        if let Some(heir) = self.heir(wanted, deadline.min(HEARING_DEADLINE)).await {
            self.hand_over(&heir, deadline).await;
        }
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
        // Its zone is recorded once the feature level allows it.
        let members = std::collections::BTreeMap::from([(identity.node_id, node.plain())]);
        raft.initialize(members).await.map_err(|error| stopped(&error))?;
    }
    identity.founder = false;
    identity.store(data)?;
    Ok(identity)
}
