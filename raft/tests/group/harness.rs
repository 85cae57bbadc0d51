//! A group of replicas, each with a directory of its own and a network that can be cut.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tempfile::TempDir;
use tercet_raft::{
    Consensus, Freshness, Hello, Identity, InitialMember, RaftError, RaftTiming, ReplicaNode, Role,
    RpcKind, StartOptions, Target, Transport, TransportError, bootstrap,
};
use tercet_storage::{Clock, DataDir, StorageError, SystemClock};
use tokio::sync::{mpsc, watch};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const ENTRIES_PER_SNAPSHOT: u64 = 200;

pub(crate) struct Group {
    network: Arc<Network>,
    dirs: Vec<TempDir>,
    running: Vec<Option<Consensus>>,
}

impl Group {
    pub(crate) async fn start(count: usize) -> Self {
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

    pub(crate) fn data(&self, i: usize) -> DataDir {
        DataDir::new(self.dirs[i].path().join("data"))
    }

    pub(crate) fn replica(&self, i: usize) -> Consensus {
        self.running[i].clone().expect("replica runs")
    }

    pub(crate) async fn leader(&self) -> usize {
        until("a leader", || async {
            (0..self.running.len()).find(|i| {
                self.running[*i].as_ref().is_some_and(|r| r.status().role == Role::Leader)
            })
        })
        .await
    }

    /// Cuts the replica off first, so that it cannot say goodbye.
    pub(crate) async fn kill(&mut self, i: usize) {
        self.network.replicas.lock().unwrap().remove(&i);
        self.network.cut.lock().unwrap().insert(i);
        self.running[i].take().unwrap().shutdown().await;
    }

    /// A process that died writes no more; this one goes on, and what a thread of the killed replica still
    /// had to write may appear in a folder that is being removed.
    pub(crate) async fn wipe(&self, i: usize) {
        let data = self.data(i);
        until("the disk is wiped", || async {
            let _ = std::fs::remove_dir_all(data.root());
            (!data.root().exists()).then_some(())
        })
        .await;
    }

    pub(crate) async fn restart(&mut self, i: usize) {
        self.restart_unsettled(i).await;
        self.settled(i).await;
    }

    pub(crate) async fn restart_unsettled(&mut self, i: usize) {
        self.network.cut.lock().unwrap().remove(&i);
        self.running[i] = Some(start_replica(self.network.clone(), self.data(i), i).await);
    }

    pub(crate) async fn settled(&self, i: usize) {
        let replica = self.replica(i);
        until("the replica is a voter", || async {
            let id = replica.identity().node_id;
            let voter =
                replica.members().iter().any(|m| m.node_id == id && m.role != Role::Learner);
            (voter && replica.read_barrier().await == Freshness::Fresh).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
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

pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
