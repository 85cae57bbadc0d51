//! Three replicas in one process, connected by function calls: what the group promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tempfile::TempDir;
use tercet_raft::{
    Command, Condition, Consensus, Freshness, Hello, Identity, InitialMember, Outcome,
    ProposeError, RaftError, RaftTiming, ReplicaNode, Role, RpcKind, StartOptions, Target,
    Transport, TransportError, bootstrap,
};
use tercet_storage::{
    Algorithm, Clock, DataDir, Digest, ManifestSummary, RepositoryName, StorageError, SystemClock,
    Tag,
};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(30);
const ENTRIES_PER_SNAPSHOT: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_anywhere_is_read_everywhere_at_once() {
    let group = Group::start(3).await;
    for round in 0..30_u64 {
        let writer = group.replica(round as usize % 3);
        let digest = push_tag(&writer, &format!("round {round}")).await.unwrap();
        for reader in 0..3 {
            let reader = group.replica(reader);
            assert_eq!(reader.read_barrier().await, Freshness::Fresh);
            assert_eq!(read_tag(&reader), Some(digest.clone()));
        }
    }
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_leader_costs_nothing_acknowledged_and_writes_go_on() {
    let mut group = Group::start(3).await;
    let before = push_tag(&group.replica(0), "before").await.unwrap();
    let leader = group.leader().await;
    group.kill(leader).await;
    let survivors: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    let after = until("a write succeeds", || async {
        push_tag(&group.replica(survivors[0]), "after").await.ok()
    })
    .await;
    for survivor in &survivors {
        let replica = group.replica(*survivor);
        until("fresh again", || async {
            (replica.read_barrier().await == Freshness::Fresh).then_some(())
        })
        .await;
        assert_eq!(read_tag(&replica), Some(after.clone()));
        assert!(knows_blob(&replica, &before));
    }
    group.restart(leader).await;
    until("the old leader has caught up", || async {
        (read_tag(&group.replica(leader)) == Some(after.clone())).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_reads_are_stale_and_writes_are_refused_in_time() {
    let mut group = Group::start(3).await;
    let pushed = push_tag(&group.replica(0), "pushed").await.unwrap();
    until("all have it", || async {
        (0..3).all(|i| read_tag(&group.replica(i)) == Some(pushed.clone())).then_some(())
    })
    .await;
    group.kill(0).await;
    group.kill(1).await;
    let last = group.replica(2);
    let asked = Instant::now();
    let refused = last.write_barrier().await;
    assert!(matches!(refused, Err(ProposeError::Unavailable(_))), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "refused after {:?}", asked.elapsed());
    assert_eq!(last.read_barrier().await, Freshness::Stale);
    let asked = Instant::now();
    assert_eq!(last.read_barrier().await, Freshness::Stale);
    assert!(asked.elapsed() < Duration::from_millis(100), "a known stale replica must not wait");
    assert_eq!(read_tag(&last), Some(pushed));
    group.restart(0).await;
    until("fresh again", || async {
        (last.read_barrier().await == Freshness::Fresh).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_returns_under_a_new_id_and_the_old_id_is_refused() {
    let mut group = Group::start(3).await;
    push_tag(&group.replica(0), "kept").await.unwrap();
    let old = group.replica(1).identity().clone();
    group.kill(1).await;
    group.wipe(1);
    group.restart(1).await;
    let new_id = group.replica(1).identity().node_id;
    assert_ne!(new_id, old.node_id);
    until("the new disk votes and the old id is gone", || async {
        let members = group.replica(0).members();
        let ids: Vec<u64> = members.iter().map(|member| member.node_id).collect();
        let voter = members.iter().any(|m| m.node_id == new_id && m.role != Role::Learner);
        (voter && !ids.contains(&old.node_id) && members.len() == 3).then_some(())
    })
    .await;
    // The old identity, restored by hand onto an otherwise fresh disk.
    group.kill(1).await;
    group.wipe(1);
    let data = group.data(1);
    drop(tercet_raft::stores::LogStore::open(&data.log()).unwrap());
    old.store(&data).unwrap();
    group.restart_unsettled(1).await;
    let refusal = until("it is refused", || async { group.replica(1).status().refused }).await;
    assert!(refusal.contains("retired"), "{refusal}");
    group.stop().await;
}

/// The dead predecessor used to count among the five, so its successor stayed a learner for ever.
#[tokio::test(flavor = "multi_thread")]
async fn with_five_voters_a_wiped_replica_still_gets_its_vote_back() {
    let mut group = Group::start(5).await;
    let old_id = group.replica(4).identity().node_id;
    group.kill(4).await;
    group.wipe(4);
    group.restart(4).await;
    let new_id = group.replica(4).identity().node_id;
    until("five voters, the old id not among them", || async {
        let members = group.replica(0).members();
        let voters = members.iter().filter(|member| member.role != Role::Learner).count();
        let ids: Vec<u64> = members.iter().map(|member| member.node_id).collect();
        (voters == 5 && ids.contains(&new_id) && !ids.contains(&old_id)).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_behind_the_purged_log_catches_up_by_snapshot() {
    let mut group = Group::start(3).await;
    group.kill(2).await;
    for round in 0..ENTRIES_PER_SNAPSHOT {
        push_tag(&group.replica(0), &format!("round {round}")).await.unwrap();
    }
    let last = push_tag(&group.replica(1), "last").await.unwrap();
    group.restart(2).await;
    let returned = group.replica(2);
    until("it has everything", || async {
        (read_tag(&returned) == Some(last.clone())).then_some(())
    })
    .await;
    assert!(returned.take_rescan(), "it must have come by snapshot: the log was purged");
    // What came by snapshot must carry on as a log does.
    drop(returned);
    group.kill(2).await;
    group.restart(2).await;
    assert_eq!(read_tag(&group.replica(2)), Some(last));
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_and_swap_lets_exactly_one_of_many_writers_win() {
    let group = Group::start(3).await;
    let attempts = (0..12).map(|writer| {
        let replica = group.replica(writer % 3);
        async move {
            let content = format!("writer {writer}");
            put_manifest(&replica, &content, Condition::IfNoneMatchAny).await.unwrap().1
        }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let won = outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count();
    assert_eq!(won, 1, "{outcomes:?}");
    group.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_what_the_repository_lacks_is_refused() {
    let group = Group::start(1).await;
    let replica = group.replica(0);
    let missing = Digest::of(Algorithm::Sha256, b"never pushed");
    let mut command = manifest_command("incomplete", Condition::None).1;
    if let Command::PutManifest { summary, .. } = &mut command {
        summary.references.push(tercet_storage::ManifestReference {
            digest: missing.clone(),
            size: 1,
            kind: tercet_storage::ReferenceKind::Blob,
        });
    }
    let outcome = replica.propose(command).await.unwrap();
    assert_eq!(outcome, Outcome::MissingReferences(vec![missing]));
    assert_eq!(read_tag(&replica), None);
    group.stop().await;
}

// ---- the group ----

struct Group {
    network: Arc<Network>,
    dirs: Vec<TempDir>,
    running: Vec<Option<Consensus>>,
}

impl Group {
    async fn start(count: usize) -> Self {
        let mut group = Self {
            network: Arc::new(Network { count, ..Network::default() }),
            dirs: (0..count).map(|_| TempDir::new().unwrap()).collect(),
            running: (0..count).map(|_| None).collect(),
        };
        let starting = (0..count).map(|i| start_replica(group.network.clone(), group.data(i), i));
        let started = futures_util::future::join_all(starting).await;
        group.running = started.into_iter().map(Some).collect();
        for i in 0..count {
            group.settled(i).await;
        }
        group
    }

    fn data(&self, i: usize) -> DataDir {
        DataDir::new(self.dirs[i].path().join("data"))
    }

    fn replica(&self, i: usize) -> Consensus {
        self.running[i].clone().expect("replica runs")
    }

    async fn leader(&self) -> usize {
        until("a leader", || async {
            (0..self.running.len()).find(|i| {
                self.running[*i].as_ref().is_some_and(|r| r.status().role == Role::Leader)
            })
        })
        .await
    }

    /// Cuts the replica off first, so that it cannot say goodbye.
    async fn kill(&mut self, i: usize) {
        self.network.replicas.lock().unwrap().remove(&i);
        self.network.cut.lock().unwrap().insert(i);
        self.running[i].take().unwrap().shutdown().await;
    }

    fn wipe(&self, i: usize) {
        std::fs::remove_dir_all(self.data(i).root()).unwrap();
    }

    async fn restart(&mut self, i: usize) {
        self.restart_unsettled(i).await;
        self.settled(i).await;
    }

    async fn restart_unsettled(&mut self, i: usize) {
        self.network.cut.lock().unwrap().remove(&i);
        self.running[i] = Some(start_replica(self.network.clone(), self.data(i), i).await);
    }

    async fn settled(&self, i: usize) {
        let replica = self.replica(i);
        until("the replica is a voter", || async {
            let id = replica.identity().node_id;
            let voter =
                replica.members().iter().any(|m| m.node_id == id && m.role != Role::Learner);
            (voter && replica.read_barrier().await == Freshness::Fresh).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        for replica in self.running.into_iter().flatten() {
            replica.shutdown().await;
        }
    }
}

async fn start_replica(network: Arc<Network>, data: DataDir, i: usize) -> Consensus {
    std::fs::create_dir_all(data.root()).unwrap();
    let name = name(i);
    let initial_members: Vec<InitialMember> = (0..network.count)
        .map(|i| InitialMember { name: self::name(i), address: address(i) })
        .collect();
    network.names.lock().unwrap().insert(i, Identity::load(&data).unwrap());
    let transport: Arc<dyn Transport> = Arc::new(Link { network: network.clone(), from: i });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (progress, _) = watch::channel(String::new());
    let identity =
        bootstrap(&data, &name, &initial_members, &transport, &clock, &progress).await.unwrap();
    network.names.lock().unwrap().insert(i, Some(identity.clone()));
    // A snapshot that was being taken may hold the databases a moment longer than the replica ran.
    let consensus = until("the databases are free", || async {
        let options = StartOptions {
            data: data.clone(),
            identity: identity.clone(),
            node: ReplicaNode { name: name.clone(), address: address(i) },
            initial_members: initial_members.clone(),
            timing: RaftTiming {
                heartbeat: Duration::from_millis(100),
                election_min: Duration::from_millis(500),
                election_max: Duration::from_millis(1000),
                entries_per_snapshot: ENTRIES_PER_SNAPSHOT,
                entries_kept: 20,
                ..RaftTiming::default()
            },
            transport: transport.clone(),
            clock: clock.clone(),
            committed_blobs: mpsc::channel(1024).0,
        };
        match Consensus::start(options).await {
            Err(RaftError::Storage(StorageError::Locked { .. })) => None,
            started => Some(started.unwrap()),
        }
    })
    .await;
    network.replicas.lock().unwrap().insert(i, consensus.clone());
    consensus
}

fn name(i: usize) -> String {
    format!("replica-{i}")
}

fn address(i: usize) -> String {
    format!("memory://{i}")
}

/// All replicas and which of them are cut off.
#[derive(Default)]
struct Network {
    count: usize,
    replicas: Mutex<HashMap<usize, Consensus>>,
    names: Mutex<HashMap<usize, Option<Identity>>>,
    cut: Mutex<HashSet<usize>>,
}

struct Link {
    network: Arc<Network>,
    from: usize,
}

impl Link {
    fn reach(&self, address: &str) -> Result<usize, TransportError> {
        let to: usize = address.trim_start_matches("memory://").parse().unwrap();
        let cut = self.network.cut.lock().unwrap();
        if cut.contains(&to) || cut.contains(&self.from) {
            return Err(TransportError::NotSent("cut off".to_owned()));
        }
        Ok(to)
    }

    fn replica(&self, target: &Target) -> Result<Consensus, TransportError> {
        let to = self.reach(&target.address)?;
        let replica = self.network.replicas.lock().unwrap().get(&to).cloned();
        let replica = replica.ok_or_else(|| TransportError::NotSent("not running".to_owned()))?;
        if replica.identity().node_id != target.node_id {
            return Err(TransportError::Rejected { status: 421, message: "not me".to_owned() });
        }
        Ok(replica)
    }
}

impl Transport for Link {
    fn call(
        &self,
        target: &Target,
        rpc: RpcKind,
        body: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let replica = self.replica(target);
        Box::pin(async move {
            let answer =
                tokio::time::timeout(deadline, replica?.handle_rpc(rpc, body).into_future())
                    .await
                    .map_err(|_| TransportError::TimedOut(deadline))?;
            answer.map_err(|error| TransportError::Broken(error.to_string()))
        })
    }

    fn send_snapshot(
        &self,
        target: &Target,
        body: BoxStream<'static, io::Result<Bytes>>,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let replica = self.replica(target);
        Box::pin(async move {
            replica?
                .handle_snapshot(body)
                .await
                .map_err(|error| TransportError::Broken(error.to_string()))
        })
    }

    fn hello(
        &self,
        address: &str,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<Hello, TransportError>> {
        let reached = self.reach(address);
        Box::pin(async move {
            let to = reached?;
            let identity = self.network.names.lock().unwrap().get(&to).cloned();
            let identity =
                identity.ok_or_else(|| TransportError::NotSent("not listening".to_owned()))?;
            Ok(Hello {
                name: name(to),
                cluster_id: identity.as_ref().map(|identity| identity.cluster_id.clone()),
                node_id: identity.as_ref().map(|identity| identity.node_id),
            })
        })
    }
}

// ---- what the tests do with it ----

fn repository() -> RepositoryName {
    "group/test".parse().unwrap()
}

fn tag() -> Tag {
    "latest".parse().unwrap()
}

fn manifest_command(content: &str, condition: Condition) -> (Digest, Command) {
    let bytes = format!("{{\"manifest\":\"{content}\"}}").into_bytes();
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let command = Command::PutManifest {
        repository: repository(),
        digest: digest.clone(),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes,
        summary: ManifestSummary {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            references: Vec::new(),
            subject: None,
            artifact_type: None,
            annotations: Default::default(),
        },
        tags: vec![tag()],
        condition,
    };
    (digest, command)
}

async fn put_manifest(
    replica: &Consensus,
    content: &str,
    condition: Condition,
) -> Result<(Digest, Outcome), ProposeError> {
    let (digest, command) = manifest_command(content, condition);
    let outcome = replica.propose(command).await?;
    Ok((digest, outcome))
}

/// Commits a blob and a manifest of the same digest, and points the tag at it.
async fn push_tag(replica: &Consensus, content: &str) -> Result<Digest, ProposeError> {
    let (digest, outcome) = put_manifest(replica, content, Condition::None).await?;
    assert_eq!(outcome, Outcome::Done);
    let blob = Command::BlobCommitted { digest: digest.clone(), size: 1, repository: repository() };
    assert_eq!(replica.propose(blob).await?, Outcome::Done);
    Ok(digest)
}

fn read_tag(replica: &Consensus) -> Option<Digest> {
    replica.read(|meta| meta.tag(&repository(), &tag())).unwrap().unwrap().map(|tag| tag.digest)
}

fn knows_blob(replica: &Consensus, digest: &Digest) -> bool {
    replica.read(|meta| meta.blob(digest)).unwrap().unwrap().is_some()
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
