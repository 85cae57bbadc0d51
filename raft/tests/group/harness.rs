//! A group of replicas, each with a directory of its own and a network that can be cut.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tempfile::TempDir;
use tercet_raft::{
    BootstrapOptions, Consensus, FEATURE_LEVEL, Freshness, Hello, Identity, InitialMember,
    Invitation, MemberKind, RaftError, RaftStatus, RaftTiming, ReplicaNode, Role, RpcError,
    RpcKind, StartOptions, Target, Transport, TransportError, bootstrap,
};
use tercet_storage::{Clock, DataDir, Headroom, HeadroomOptions, Space, StorageError, SystemClock};
use tokio::sync::{mpsc, watch};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const ENTRIES_PER_SNAPSHOT: u64 = 200;
/// Bytes of each replica's volume, as far as Raft is told.
pub(crate) const VOLUME_BYTES: u64 = 1 << 40;
/// Half of it is where growing ends, an eighth where everything does.
pub(crate) const HEADROOM_BYTES: u64 = 64 << 20;

pub(crate) struct Group {
    network: Arc<Network>,
    dirs: Vec<TempDir>,
    running: Vec<Option<Consensus>>,
}

/// How a replica is configured.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) kind: MemberKind,
    pub(crate) zone: Option<String>,
    pub(crate) feature_level: u32,
    /// Its name and where it listens, if it is to take another one's.
    pub(crate) name: Option<String>,
    /// Its initial members, if they are not those of the others.
    pub(crate) initial_members: Option<Vec<usize>>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            kind: MemberKind::Voter,
            zone: None,
            feature_level: FEATURE_LEVEL,
            name: None,
            initial_members: None,
        }
    }
}

impl Group {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_as(count, |_| Spec::default()).await
    }

    pub(crate) async fn start_as(count: usize, spec: impl Fn(usize) -> Spec) -> Self {
        let specs = (0..count).map(|i| (i, spec(i))).collect();
        let mut group = Self {
            network: Arc::new(Network { count, specs: Mutex::new(specs), ..Network::default() }),
            dirs: (0..count).map(|_| TempDir::new().unwrap()).collect(),
            running: (0..count).map(|_| None).collect(),
        };
        let starting = (0..count).map(|i| start_replica(group.network.clone(), group.data(i), i));
        let started = futures_util::future::join_all(starting).await;
        group.running = started.into_iter().map(Some).collect();
        for i in 0..count {
            group.settled(i).await;
        }
        group.even().await;
        group
    }

    /// Starts one more replica on an empty disk; answers its number.
    pub(crate) async fn add(&mut self, spec: Spec) -> usize {
        let i = self.add_stopped(spec);
        self.restart_unsettled(i).await;
        i
    }

    /// As [`Self::add`], without starting it.
    pub(crate) fn add_stopped(&mut self, spec: Spec) -> usize {
        let i = self.running.len();
        self.set_spec(i, spec);
        self.dirs.push(TempDir::new().unwrap());
        self.running.push(None);
        i
    }

    /// Starts it in the background: it may have to wait.
    pub(crate) fn starting(&self, i: usize) -> tokio::task::JoinHandle<Consensus> {
        tokio::spawn(start_replica(self.network.clone(), self.data(i), i))
    }

    /// Starts it outside of the group's care; the error if it refuses.
    pub(crate) async fn try_start(&self, i: usize) -> Result<Consensus, RaftError> {
        self.set_cut(i, false);
        try_start_replica(self.network.clone(), self.data(i), i).await
    }

    pub(crate) async fn start_error(&self, i: usize) -> String {
        match self.try_start(i).await {
            Ok(_) => panic!("replica {i} starts"),
            Err(error) => error.to_string(),
        }
    }

    pub(crate) fn started(&mut self, i: usize, replica: Consensus) {
        self.running[i] = Some(replica);
    }

    /// From its next start on.
    pub(crate) fn set_spec(&self, i: usize, spec: Spec) {
        self.network.specs.lock().unwrap().insert(i, spec);
    }

    /// Cuts a running replica off, or lets it in again.
    pub(crate) fn set_cut(&self, i: usize, cut: bool) {
        let mut all = self.network.cut.lock().unwrap();
        if cut {
            all.insert(i)
        } else {
            all.remove(&i)
        };
    }

    /// From now on every message takes so much longer.
    pub(crate) fn set_delay(&self, delay: Duration) {
        *self.network.delay.lock().unwrap() = delay;
    }

    /// The replicas that run.
    pub(crate) fn all(&self) -> Vec<usize> {
        (0..self.running.len()).filter(|i| self.running[*i].is_some()).collect()
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

    /// From now on so many bytes are left on a replica's volume.
    pub(crate) fn set_free(&self, i: usize, bytes: u64) {
        self.network.free.lock().unwrap().insert(i, bytes);
    }

    /// Cuts the replica off first, so that it cannot say goodbye.
    pub(crate) async fn kill(&mut self, i: usize) {
        self.network.replicas.lock().unwrap().remove(&i);
        self.network.cut.lock().unwrap().insert(i);
        self.running[i].take().unwrap().shutdown().await;
    }

    /// Empties the disk of a killed replica.
    pub(crate) async fn wipe(&self, i: usize) {
        self.released(i).await;
        std::fs::remove_dir_all(self.data(i).root()).unwrap();
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

    /// Waits until every replica that runs has applied all that was written, and no change of the members
    /// is under way. A write is acknowledged without the slowest one, and one that joined already counts
    /// as a voter in the first half of its change.
    pub(crate) async fn even(&self) {
        until("all have applied the same log", || async {
            let statuses: Vec<_> = self.running.iter().flatten().map(Consensus::status).collect();
            let newest = statuses.iter().map(|status| status.last_log).max();
            let even = |status: &RaftStatus| {
                Some(status.last_log) == newest
                    && status.applied == status.last_log
                    && !status.changing_members
            };
            statuses.iter().all(even).then_some(())
        })
        .await;
    }

    /// Copies the disk of a killed replica.
    pub(crate) async fn copy_disk(&self, i: usize, to: &Path) {
        self.released(i).await;
        copy_folder(self.data(i).root(), to);
    }

    /// Waits until no thread of a killed replica has files of its disk open. A process that died writes and
    /// deletes no more; this one goes on.
    async fn released(&self, i: usize) {
        let data = self.data(i);
        until("nobody has the disk open", || async {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut files = open.flatten().flat_map(|file| std::fs::read_link(file.path()));
            (!files.any(|file| file.starts_with(data.root()))).then_some(())
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
    try_start_replica(network, data, i).await.unwrap()
}

async fn try_start_replica(
    network: Arc<Network>,
    data: DataDir,
    i: usize,
) -> Result<Consensus, RaftError> {
    std::fs::create_dir_all(data.root()).unwrap();
    let spec = network.specs.lock().unwrap().get(&i).cloned().unwrap_or_default();
    let name = spec.name.clone().unwrap_or_else(|| self::name(i));
    let known = spec.initial_members.clone().unwrap_or_else(|| (0..network.count).collect());
    let initial_members: Vec<InitialMember> = known
        .into_iter()
        .map(|i| InitialMember { name: self::name(i), address: address(i) })
        .collect();
    network.names.lock().unwrap().insert(i, Identity::load(&data).unwrap());
    let transport: Arc<dyn Transport> = Arc::new(Link { network: network.clone(), from: i });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (progress, _) = watch::channel(String::new());
    let invited = network.invitations(i);
    // What ran on a disk that was wiped may hold the databases a moment longer.
    let identity = until("the databases are free to be made", || async {
        let options = BootstrapOptions {
            data: &data,
            own_name: &name,
            kind: spec.kind,
            initial_members: &initial_members,
            transport: &transport,
            clock: &clock,
            progress: &progress,
            invited: &invited,
        };
        match bootstrap(options).await {
            Err(RaftError::Storage(StorageError::Locked { .. })) => None,
            identity => Some(identity),
        }
    })
    .await?;
    network.names.lock().unwrap().insert(i, Some(identity.clone()));
    // A snapshot that was being taken may hold the databases a moment longer than the replica ran.
    let consensus = until("the databases are free", || async {
        let options = StartOptions {
            data: data.clone(),
            identity: identity.clone(),
            node: ReplicaNode {
                name: name.clone(),
                address: address(i),
                kind: spec.kind,
                zone: spec.zone.clone(),
            },
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
            headroom: headroom(&network, &data, i),
            feature_level: spec.feature_level,
            committed_blobs: mpsc::channel(1024).0,
        };
        match Consensus::start(options).await {
            Err(RaftError::Storage(StorageError::Locked { .. })) => None,
            started => Some(started),
        }
    })
    .await?;
    network.replicas.lock().unwrap().insert(i, consensus.clone());
    Ok(consensus)
}

/// Looks at a volume whose space the test sets.
fn headroom(network: &Arc<Network>, data: &DataDir, i: usize) -> Headroom {
    let network = Arc::clone(network);
    let probe = move |_: &std::path::Path| {
        let available = network.free.lock().unwrap().get(&i).copied().unwrap_or(VOLUME_BYTES);
        Ok(Space { total: VOLUME_BYTES, available, inodes_total: 0, inodes_available: 0 })
    };
    let options = HeadroomOptions { headroom_bytes: HEADROOM_BYTES, reserve_bytes: 0 };
    Headroom::open_with(data, options, Arc::new(probe)).unwrap()
}

/// As the peer listener says it.
fn refusal(error: RpcError) -> TransportError {
    match error {
        RpcError::NoSpace(message) => TransportError::Rejected { status: 507, message },
        error => TransportError::Broken(error.to_string()),
    }
}

pub(crate) fn name(i: usize) -> String {
    format!("replica-{i}")
}

pub(crate) fn address(i: usize) -> String {
    format!("memory://{i}")
}

/// All replicas and which of them are cut off.
#[derive(Default)]
struct Network {
    count: usize,
    replicas: Mutex<HashMap<usize, Consensus>>,
    names: Mutex<HashMap<usize, Option<Identity>>>,
    cut: Mutex<HashSet<usize>>,
    /// Bytes left on the volumes that are filling up.
    free: Mutex<HashMap<usize, u64>>,
    specs: Mutex<HashMap<usize, Spec>>,
    delay: Mutex<Duration>,
    invited: Mutex<HashMap<usize, watch::Sender<Option<Invitation>>>>,
}

impl Network {
    fn invitations(&self, i: usize) -> watch::Receiver<Option<Invitation>> {
        let mut invited = self.invited.lock().unwrap();
        invited.entry(i).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    fn spec(&self, i: usize) -> Spec {
        self.specs.lock().unwrap().get(&i).cloned().unwrap_or_default()
    }
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
        let delay = *self.network.delay.lock().unwrap();
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let answer =
                tokio::time::timeout(deadline, replica?.handle_rpc(rpc, body).into_future())
                    .await
                    .map_err(|_| TransportError::TimedOut(deadline))?;
            answer.map_err(refusal)
        })
    }

    fn send_snapshot(
        &self,
        target: &Target,
        body: BoxStream<'static, io::Result<Bytes>>,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<Bytes, TransportError>> {
        let replica = self.replica(target);
        Box::pin(async move { replica?.handle_snapshot(body).await.map_err(refusal) })
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
            let spec = self.network.spec(to);
            Ok(Hello {
                name: spec.name.unwrap_or_else(|| name(to)),
                cluster_id: identity.as_ref().map(|identity| identity.cluster_id.clone()),
                node_id: identity.as_ref().map(|identity| identity.node_id),
                feature_level: spec.feature_level,
            })
        })
    }

    fn invite(
        &self,
        address: &str,
        invitation: &Invitation,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<(), TransportError>> {
        let reached = self.reach(address);
        let invitation = invitation.clone();
        Box::pin(async move {
            let invited = self.network.invited.lock().unwrap();
            let waiting = invited.get(&reached?);
            let waiting =
                waiting.ok_or_else(|| TransportError::NotSent("not listening".to_owned()))?;
            waiting.send_replace(Some(invitation));
            Ok(())
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

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
