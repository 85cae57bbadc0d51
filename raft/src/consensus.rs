//! One replica's seat in the group.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftLogStorage;
use openraft::{LogState, RaftLogReader as _, ServerState};
use tercet_storage::{Clock, DataDir, Digest, Headroom, Meta, Room, StateDb};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Checkpoint;
use crate::command::{Command, Leaving};
use crate::config::RaftTiming;
use crate::confirmed::{Confirmations, Confirmed, OwnLog, refuse_outdated};
use crate::error::{ProposeError, RaftError, RpcError};
use crate::identity::Identity;
use crate::latency::{Latency, PeerLatencies};
use crate::log::LogStore;
use crate::machine::{BlobFeed, Collected, CollectedFeed, Machine, State, nothing_synced};
use crate::network::{NetworkFactory, RpcKind, Target, Transport};
use crate::outcome::Outcome;
use crate::read::{self, Freshness, ReadBarrier};
use crate::room::FullPeers;
use crate::roster::HEARING_DEADLINE;
use crate::state_hash::StateHash;
use crate::type_config::alias::{self, LogId, Raft, StoredMembership};
use crate::type_config::{MemberKind, NodeId, ReplicaNode, TypeConfig};
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
    pub(crate) applied: alias::WatchReceiver<Option<u64>>,
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
    /// What the others have confirmed.
    pub(crate) confirmations: Confirmations,
    blobs: BlobFeed,
    collected: CollectedFeed,
    stop: CancellationToken,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Consensus {
    /// Opens the stores, checks that they belong together, and takes part.
    pub async fn start(options: StartOptions) -> Result<Self, RaftError> {
        let path = options.data.log();
        if !path.join("CURRENT").exists() {
            // `bootstrap` creates the log before the identity, so an identity without a log means
            // that votes and entries are gone.
            return Err(RaftError::LogLost { path, last_log: 0, applied: 0 });
        }
        let log = LogStore::open(&path)?.watching(options.headroom.clone());
        let fsync = log.fsync_latency();
        Self::start_on(options, log, fsync).await
    }

    /// Takes part with this log, whose syncs `fsync` measures.
    pub(crate) async fn start_on<L: RaftLogStorage<TypeConfig>>(
        options: StartOptions,
        mut log: L,
        fsync: Latency,
    ) -> Result<Self, RaftError> {
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
        let machine = Machine::open_at(&data, committed_blobs, feature_level)?;
        let state = machine.state();
        let stopped = |error: io::Error| RaftError::Stopped(error.to_string());
        let log_state = log.get_log_state().await.map_err(stopped)?;
        let log_end = check_log_against_state(&log_state, &machine, &data)?;
        let vote = log.get_log_reader().await.read_vote().await.map_err(stopped)?;
        // A disk that has not voted yet is not asked for: it has confirmed nothing, or is from before that.
        if let Some(vote) = vote {
            let (applied, membership) = state.applied().map_err(stopped)?;
            let end = match log_end {
                LogEnd::BeforeState => applied,
                LogEnd::WithState => log_state.last_log_id.max(state.installed().map_err(stopped)?),
            };
            let own = Confirmed { leader: vote.leader_id, log: end };
            let addresses = others(&identity, &membership, &initial_members);
            // openraft forgets across a restart that this replica has just confirmed a leader, and
            // would vote at once. The old leader may still answer reads on the strength of that
            // confirmation, for as long as `READ_LEASE_HEARTBEATS` says: stay silent until then.
            let silence = tokio::time::sleep(timing.read_lease());
            let (checked, ()) =
                tokio::join!(refuse_outdated(&identity, own, addresses, &transport), silence);
            checked?;
        }
        if log_end == LogEnd::BeforeState {
            go_on_from_state(&mut log, &log_state, &machine).await.map_err(stopped)?;
        }
        let (blobs, applied) = (machine.blob_feed(), machine.watch_applied());
        let collected = machine.collected_feed();
        let full_peers = FullPeers::default();
        let peer_latencies = PeerLatencies::default();
        let confirmations = Confirmations::default();
        let own_log = OwnLog::new(&state);
        let network = NetworkFactory {
            own_id: identity.node_id,
            transport: Arc::clone(&transport),
            full_peers: full_peers.clone(),
            latencies: peer_latencies.clone(),
            confirmations: confirmations.clone(),
            own_log: own_log.clone(),
        };
        let config = Arc::new(timing.openraft_config(&identity.cluster_id)?);
        let raft = Raft::new(identity.node_id, config, network, log, machine)
            .await
            .map_err(|error| RaftError::Stopped(error.to_string()))?;
        let progress = raft.watch_log_progress();
        let flushed = raft.watch_log_progress();
        own_log.follow(Box::new(move || {
            let flushed = flushed.get()?;
            Some(Confirmed { leader: flushed.vote.leader_id, log: flushed.last_log_id })
        }));
        state.follow_log(Box::new(move || progress.get().and_then(|flushed| flushed.last_log_id)));
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
            confirmations,
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

    /// The digest of the state as of one index. Reads all of it, on a thread of its own; fails when the disk does,
    /// and when a snapshot takes the state's place meanwhile.
    pub async fn state_hash(&self) -> io::Result<StateHash> {
        self.inner.state_hash().await
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
        let mut metrics = self.inner.raft.server_metrics();
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
        self.inner.state.let_go();
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
        // These end with Raft. The others say why it ended, but change several times with each entry: whoever waits for
        // them is woken for nothing, and a thread with it.
        let mut metrics = self.inner.raft.server_metrics();
        while metrics.changed().await.is_ok() {}
        let stopped = self.inner.raft.metrics().borrow_watched().running_state.clone().err();
        stopped.map_or_else(|| "raft has stopped".to_owned(), |error| error.to_string())
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

/// Where the other replicas are, as far as this disk and this configuration know.
fn others(
    identity: &Identity,
    membership: &StoredMembership,
    configured: &[InitialMember],
) -> BTreeSet<String> {
    let members = membership.membership().nodes();
    let members = members.filter(|(id, _)| **id != identity.node_id);
    let configured = configured.iter().filter(|member| member.name != identity.name);
    members
        .map(|(_, node)| node.address.clone())
        .chain(configured.map(|member| member.address.clone()))
        .collect()
}

/// Where the log ends.
#[derive(Debug, PartialEq, Eq)]
enum LogEnd {
    /// Where the state does, or later; or the state came as a snapshot.
    WithState,
    /// Earlier, by entries that were not synced here when the machine lost its power.
    BeforeState,
}

/// The log must reach as far as it was synced when the state was last written, and the state as far as the log was
/// purged. A log that ends before the state has lost entries; if they were not synced, this replica has never confirmed
/// them, and a majority of others has.
fn check_log_against_state(
    log: &LogState<TypeConfig>,
    machine: &Machine,
    data: &DataDir,
) -> Result<LogEnd, RaftError> {
    let io = |error: io::Error| RaftError::Stopped(error.to_string());
    let state = machine.state();
    let (applied, _) = state.applied().map_err(io)?;
    let purged = log.last_purged_log_id.map(|id| id.index);
    if purged > applied.map(|id| id.index) {
        return Err(RaftError::StateLost {
            path: data.state(),
            purged: purged.unwrap_or(0),
            applied: applied.map_or(0, |id| id.index),
        });
    }
    let installed = state.installed().map_err(io)?;
    // By leader and index: an entry that another one replaced may have lost its successor.
    if applied <= log.last_log_id {
        return Ok(LogEnd::WithState);
    }
    if applied == installed {
        // What the log has there was replaced. It was removed when the state took its place, and that may not have been
        // synced: another loss of power brings it back.
        let replaced = log.last_log_id.map(|id| id.index) >= applied.map(|id| id.index);
        return Ok(if replaced { LogEnd::BeforeState } else { LogEnd::WithState });
    }
    match state.log_must_reach().map_err(io)? {
        // Also a log without any entry reaches that.
        Some(synced) if synced == nothing_synced() => Ok(LogEnd::BeforeState),
        Some(synced) if log.last_log_id.max(installed) >= Some(synced) => Ok(LogEnd::BeforeState),
        _ => Err(RaftError::LogLost {
            path: data.log(),
            last_log: log.last_log_id.map_or(0, |id| id.index),
            applied: applied.map_or(0, |id| id.index),
        }),
    }
}

/// Makes the state the beginning of the log, as a snapshot would be: openraft purges the log up to it, and what the
/// log has behind it was replaced by the entries that are lost.
async fn go_on_from_state<L: RaftLogStorage<TypeConfig>>(
    log: &mut L,
    log_state: &LogState<TypeConfig>,
    machine: &Machine,
) -> io::Result<()> {
    let Some(applied) = machine.take_state_as_installed()? else { return Ok(()) };
    tracing::warn!(
        log = ?log_state.last_log_id,
        state = ?applied,
        "the log lost entries that were not synced yet: going on from the state, which has them"
    );
    if log_state.last_log_id.map(|id| id.index) >= Some(applied.index) {
        let before = applied.index.checked_sub(1);
        let before = before.map(|index| LogId { index, ..applied });
        log.truncate_after(before).await?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::type_config::alias::{Entry, LeaderId, Payload};

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 7 }, index }
    }

    /// A state that has applied these entries, and was written while the log was synced up to `synced`.
    fn machine(data: &DataDir, applied: &[LogId], synced: Option<LogId>) -> Machine {
        let (blobs, _) = mpsc::channel(1);
        let machine = Machine::open(data, blobs).unwrap();
        machine.state().follow_log(Box::new(move || synced));
        for log_id in applied {
            let entry = Entry { log_id: *log_id, payload: Payload::Blank };
            machine.state().apply(vec![entry]).unwrap();
        }
        machine
    }

    fn log_until(last: LogId) -> LogState<TypeConfig> {
        LogState { last_purged_log_id: None, last_log_id: Some(last) }
    }

    #[tokio::test]
    async fn a_log_may_end_before_the_state_by_what_was_not_synced_and_by_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().to_owned());
        let applied = [id(1, 0), id(1, 1), id(2, 2), id(2, 3)];
        let machine = machine(&data, &applied, Some(id(1, 1)));
        let check = |last| check_log_against_state(&log_until(last), &machine, &data);
        assert_eq!(check(id(2, 3)).unwrap(), LogEnd::WithState);
        assert_eq!(check(id(2, 9)).unwrap(), LogEnd::WithState);
        assert_eq!(check(id(2, 2)).unwrap(), LogEnd::BeforeState);
        assert_eq!(check(id(1, 1)).unwrap(), LogEnd::BeforeState);
        // Entries of an earlier leader, whose successors were lost.
        assert_eq!(check(id(1, 5)).unwrap(), LogEnd::BeforeState);
        assert!(matches!(check(id(1, 0)), Err(RaftError::LogLost { last_log: 0, applied: 3, .. })));

        let mut log = LogStore::open(&data.log()).unwrap();
        go_on_from_state(&mut log, &log_until(id(2, 2)), &machine).await.unwrap();
        assert_eq!(check(id(2, 2)).unwrap(), LogEnd::WithState);
        assert_eq!(machine.state().installed().unwrap(), Some(id(2, 3)));
        // Power may go before that is synced, and then the log still has what was replaced.
        assert_eq!(check(id(1, 5)).unwrap(), LogEnd::BeforeState);
    }

    #[test]
    fn a_log_behind_what_was_synced_has_lost_entries() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().to_owned());
        let applied = [id(2, 0), id(2, 1), id(2, 2)];
        // What is synced further than the state reaches may be cut off again, and does not count.
        let synced = machine(&data, &applied, Some(id(2, 5)));
        let check = |last| check_log_against_state(&log_until(last), &synced, &data);
        assert_eq!(check(id(2, 2)).unwrap(), LogEnd::WithState);
        for last in [id(2, 1), id(1, 9)] {
            assert!(matches!(check(last), Err(RaftError::LogLost { applied: 2, .. })));
        }
    }

    #[test]
    fn what_another_leader_has_replaced_need_not_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().to_owned());
        // The log tells of the append of (2, 2) later than of those that it replaced.
        let applied = [id(1, 0), id(1, 1), id(2, 2)];
        let synced = machine(&data, &applied, Some(id(1, 9)));
        assert_eq!(synced.state().log_must_reach().unwrap(), Some(id(1, 1)));
        let check = |last| check_log_against_state(&log_until(last), &synced, &data);
        assert_eq!(check(id(1, 1)).unwrap(), LogEnd::BeforeState);
        assert!(check(id(1, 0)).is_err());
    }

    #[test]
    fn a_state_of_an_older_version_does_not_say_how_far_the_log_was_synced() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().to_owned());
        let silent = machine(&data, &[id(1, 0), id(1, 1)], None);
        silent.state().forget_log_synced().unwrap();
        // Nor does it while nothing is known to be synced.
        let next = Entry { log_id: id(1, 2), payload: Payload::Blank };
        silent.state().apply(vec![next]).unwrap();
        let checked = check_log_against_state(&log_until(id(1, 0)), &silent, &data);
        assert!(matches!(checked, Err(RaftError::LogLost { .. })));
    }

    #[test]
    fn a_new_state_may_have_what_its_log_never_synced() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path().to_owned());
        let new = machine(&data, &[id(1, 0), id(1, 1)], None);
        let check = |log: LogState<TypeConfig>| check_log_against_state(&log, &new, &data);
        assert_eq!(check(log_until(id(1, 0))).unwrap(), LogEnd::BeforeState);
        let empty = LogState { last_purged_log_id: None, last_log_id: None };
        assert_eq!(check(empty).unwrap(), LogEnd::BeforeState);
        assert_eq!(check(log_until(id(1, 1))).unwrap(), LogEnd::WithState);
    }
}
