//! One run: a cluster, the load on it, and what a scenario does to both.

mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use super::{
    Length, Namespaces,
    faults::{FaultId, Faults},
};
use crate::{
    check::{Bounds, RESUME_MAX, RESUME_MAX_SHARED, Sampler},
    client::{Answer, RegistryClient},
    cluster::Cluster,
    content::{Blob, Image},
    nemesis::Links,
    network::Network,
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    status::Status,
    timeline::LeaderWatch,
    wait::wait_until,
    workload::{ATTEMPT_PATIENCE, Invariant, Ledger, Load, LoadOptions, Targets, first_write},
};

/// A client gives up on an answer after this: longer than any deadline of the registry for a metadata operation.
const CLIENT_PATIENCE: Duration = Duration::from_secs(8);
/// Until replicas that run again are ready, and until all hold everything (I5), unless somebody wants that sooner.
pub(crate) const HEAL_DEADLINE: Duration = Duration::from_secs(90);
/// Until a scrub that was asked for has found nothing wrong: it reads everything, and a full form has gigabytes.
pub(crate) const SCRUB_DEADLINE: Duration = Duration::from_secs(360);

/// What a scenario works with.
#[derive(Debug)]
pub struct Run {
    pub(crate) seed: u64,
    pub(crate) length: Length,
    /// What the scenario is about.
    invariants: &'static [Invariant],
    /// T: until all hold everything after the healing.
    replication_max: Duration,
    /// What this process has for itself.
    pub(crate) namespaces: Namespaces,
    /// What a replica may take of the machine.
    pub(crate) bounds: Bounds,
    pub(crate) random: StdRng,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) targets: Targets,
    pub(crate) faults: Faults,
    pub(crate) figures: BTreeMap<String, Value>,
    /// Which replicas are members; all of the cluster, unless one was removed.
    pub(crate) members: Vec<usize>,
    /// Where every member holds every blob. Else only the registry's own count of missing ones is asked.
    pub(crate) full_copies: bool,
    pub(crate) network: Option<Network>,
    /// Proxies on the links, where a scenario has put some.
    pub(crate) links: Links,
    pub(crate) resumed: Vec<Duration>,
    pub(crate) full_replication: Option<Duration>,
    pub(crate) tags_checked: (usize, usize),
    /// The changes among those operations, once all of them were checked.
    tag_changes: Option<usize>,
    pub(crate) checked_pulls: usize,
    /// Who leads; ends before the cluster does.
    watch: Option<LeaderWatch>,
    /// What the processes of the replicas take.
    sampler: Option<Sampler>,
    cluster: Option<Cluster>,
    /// Whether there ever was one.
    began: bool,
    /// Replicas that were killed and not started again, with the fault that this is.
    down: BTreeMap<usize, FaultId>,
    load: Option<Load>,
    /// Whether clients may have begun what is in no history: they still run, or were ended on their way.
    unfinished: bool,
    /// Loads started so far.
    loads: u64,
    load_started: Option<Instant>,
    load_time: Duration,
    healed: Option<Instant>,
}

impl Run {
    pub(crate) fn new(
        invariants: &'static [Invariant],
        seed: u64,
        length: Length,
        replication_max: Duration,
        namespaces: Namespaces,
    ) -> Self {
        Self {
            seed,
            length,
            invariants,
            replication_max,
            namespaces,
            bounds: Bounds::default(),
            random: StdRng::seed_from_u64(seed),
            ledger: Arc::default(),
            targets: Targets::default(),
            faults: Faults::default(),
            figures: BTreeMap::new(),
            members: Vec::new(),
            full_copies: true,
            network: None,
            links: Links::default(),
            resumed: Vec::new(),
            full_replication: None,
            tags_checked: (0, 0),
            tag_changes: None,
            checked_pulls: 0,
            watch: None,
            sampler: None,
            cluster: None,
            began: false,
            down: BTreeMap::new(),
            load: None,
            unfinished: false,
            loads: 0,
            load_started: None,
            load_time: Duration::ZERO,
            healed: None,
        }
    }

    /// One of two values, by the length of the run.
    pub(crate) fn of<T>(&self, short: T, full: T) -> T {
        match self.length {
            Length::Short => short,
            Length::Full => full,
        }
    }

    /// Starts the cluster, with a host for each replica where there can be hosts; a full run has the machine for itself.
    pub(crate) async fn start(&mut self, options: ClusterOptions) -> Result<()> {
        self.start_prepared(options, |_| Ok(())).await
    }

    /// Starts the cluster after `prepare` has looked at what is on its disk; no process runs then.
    pub(crate) async fn start_prepared(
        &mut self,
        options: ClusterOptions,
        prepare: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<()> {
        let options = self.housed(options).await?;
        self.start_where(options, prepare).await
    }

    /// With a host for each replica, if this process has a network for itself.
    async fn housed(&mut self, options: ClusterOptions) -> Result<ClusterOptions> {
        if !self.namespaces.network {
            return Ok(options);
        }
        let hosts = u8::try_from(options.replicas + options.later)?;
        let network = Network::start(hosts).await.or_not_shown()?;
        let options = options.on_hosts(network.hosts());
        self.network = Some(network);
        Ok(options)
    }

    /// Starts the cluster where its options say.
    async fn start_where(
        &mut self,
        options: ClusterOptions,
        prepare: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<()> {
        let options = if self.length == Length::Full { options.alone() } else { options };
        let mut cluster = Cluster::prepare(options).await?;
        prepare(&mut cluster)?;
        self.began = true;
        for index in 0..cluster.len() {
            cluster.restart(index)?;
        }
        cluster.wait_ready(HEAL_DEADLINE).await?;
        self.faults.note(&format!("{} replicas are ready", cluster.len()));
        self.members = (0..cluster.len()).collect();
        let recorder = Arc::clone(self.ledger.recorder());
        self.watch = Some(LeaderWatch::start(cluster.http().clone(), recorder));
        self.sampler = Some(Sampler::start(cluster.folder()));
        self.cluster = Some(cluster);
        self.retarget()
    }

    /// Starts the cluster on loopback, also where there can be hosts, with a proxy on every link between replicas and before
    /// each of them.
    pub(crate) async fn start_through_proxies(&mut self, options: ClusterOptions) -> Result<()> {
        let (mut links, seed) = (Links::default(), self.seed);
        let prepare = |cluster: &mut Cluster| {
            links.stand_between_peers(cluster, seed)?;
            links.stand_before_clients(cluster, seed)
        };
        let started = self.start_where(options.through_proxies(), prepare).await;
        self.links = links;
        started
    }

    /// Starts the cluster with a host for each replica, and a proxy on each direction of each link and before each replica.
    /// `prepare` looks at what is on its disk, as with [`Self::start_prepared`].
    pub(crate) async fn start_on_far_hosts(
        &mut self,
        options: ClusterOptions,
        prepare: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<()> {
        let options = self.housed(options).await?;
        let network = self.network.take().context("this scenario has no network of its own")?;
        let (mut links, seed) = (Links::default(), self.seed);
        let started = self
            .start_where(options, |cluster| {
                links.stand_between_hosts(cluster, &network, seed)?;
                links.stand_before_clients(cluster, seed)?;
                prepare(cluster)
            })
            .await;
        self.network = Some(network);
        self.links = links;
        started
    }

    /// Whether replicas were started: before that nothing can be said about the registry.
    pub(crate) fn began(&self) -> bool {
        self.began
    }

    /// Where the replicas' links are cut.
    pub(crate) fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("this scenario has no network of its own")
    }

    /// The cluster.
    pub(crate) fn cluster(&mut self) -> Result<&mut Cluster> {
        self.cluster.as_mut().context("the scenario has not started a cluster")
    }

    /// A client of one replica, with the patience of the load's.
    pub(crate) fn client(&mut self, index: usize) -> Result<RegistryClient> {
        let recorder = Arc::clone(self.ledger.recorder());
        let cluster = self.cluster()?;
        let client = cluster.client(index)?.patient_for(CLIENT_PATIENCE);
        Ok(client.recorded(&recorder, &cluster.replica(index).name))
    }

    /// Lets the load ask the members, as they are now.
    pub(crate) fn retarget(&mut self) -> Result<()> {
        let members = self.members.clone();
        let clients = members.iter().map(|index| self.client(*index)).collect::<Result<_>>()?;
        self.targets.set(clients);
        if let (Some(watch), Some(cluster)) = (&self.watch, &self.cluster) {
            watch.ask(members.iter().map(|index| cluster.ops_url(*index)));
        }
        Ok(())
    }

    /// Starts the load, and waits until it has done something.
    pub(crate) async fn load(&mut self, options: LoadOptions) -> Result<()> {
        self.unfinished = true;
        let load =
            Load::start(&self.targets, &self.ledger, options, self.seed.wrapping_add(self.loads))
                .await?;
        self.loads += 1;
        self.load = Some(load);
        self.load_started = Some(Instant::now());
        self.progress(20).await?;
        self.ledger.recorder().due();
        Ok(())
    }

    /// Ends the load.
    pub(crate) async fn stop_load(&mut self) -> Result<()> {
        if let Some(load) = self.load.take() {
            load.stop().await?;
            self.unfinished = false;
        }
        if let Some(started) = self.load_started.take() {
            self.load_time += started.elapsed();
        }
        self.ledger.recorder().writing_ends();
        self.ledger.recorder().nothing_due();
        Ok(())
    }

    pub(crate) fn acknowledged_per_second(&self) -> f64 {
        let counts = self.ledger.counts();
        let time =
            self.load_time + self.load_started.map_or(Duration::ZERO, |start| start.elapsed());
        let seconds = time.as_secs_f64();
        if seconds == 0.0 {
            return 0.0;
        }
        (counts.acknowledged_writes + counts.acknowledged_reads) as f64 / seconds
    }

    /// Waits until so many more writes are acknowledged: the load's own clock.
    pub(crate) async fn progress(&mut self, writes: u64) -> Result<()> {
        let before = self.ledger.counts().acknowledged_writes;
        let ledger = self.ledger.clone();
        wait_until(&format!("{writes} more writes are acknowledged"), HEAL_DEADLINE, || async {
            let done = ledger.counts().acknowledged_writes - before;
            ensure!(done >= writes, "{done} so far");
            Ok(())
        })
        .await
    }

    /// Some work between two faults: how much is random.
    pub(crate) async fn work(&mut self) -> Result<()> {
        let writes = self.random.random_range(40..=200);
        self.progress(writes).await
    }

    /// After a fault that leaves a majority: measures how long it takes until a write is acknowledged by any of
    /// the replicas that are left.
    pub(crate) async fn writes_resume(&mut self, left: &[usize]) -> Result<()> {
        let bound = self.resume_max();
        let mut clients = Vec::new();
        for index in left {
            clients.push(self.client(*index)?.patient_for(ATTEMPT_PATIENCE));
        }
        let number = self.resumed.len();
        let took = first_write(&self.ledger, &clients, &format!("{}-{number}", self.seed)).await;
        let took = took.inspect_err(|error| self.ledger.never_resumed(error))?;
        self.faults.note(&format!("a write was acknowledged after {took:?}"));
        self.resumed.push(took);
        self.ledger.judge_resumed(took, bound);
        Ok(())
    }

    fn resume_max(&self) -> Duration {
        self.of(RESUME_MAX_SHARED, RESUME_MAX)
    }

    /// Takes the majority away: until [`Self::majority_back`] no write is due (I8).
    pub(crate) fn majority_gone(&self) {
        self.ledger.recorder().nothing_due();
    }

    /// A majority of the replicas is up and connected again.
    pub(crate) fn majority_back(&self) {
        if self.load.is_some() {
            self.ledger.recorder().due();
        }
    }

    /// Heads or tails.
    pub(crate) fn toss(&mut self) -> bool {
        self.random.random_bool(0.5)
    }

    /// How long a fault lasts: a random time between the two.
    pub(crate) async fn last(&mut self, shortest: Duration, longest: Duration) {
        let time = self.random.random_range(shortest..=longest);
        tokio::time::sleep(time).await;
    }

    /// A random one of these.
    pub(crate) fn choose<T: Copy>(&mut self, among: &[T]) -> Result<T> {
        ensure!(!among.is_empty(), "nothing to choose from");
        let index = self.random.random_range(0..among.len());
        among.get(index).copied().context("an index below the length")
    }

    /// `kill -9`: a fault that goes on until [`Self::restart_all`] has waited for the replica to be ready again.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        self.cluster()?.kill9(index)?;
        let fault = self.faults.begin("kill -9", &format!("replica {index}"));
        self.down.insert(index, fault);
        let members = self.members.clone();
        let cluster = self.cluster()?;
        let up = members.iter().filter(|index| cluster.is_running(**index)).count();
        if up * 2 <= members.len() {
            self.majority_gone();
        }
        Ok(())
    }

    /// Starts every replica that does not run, and waits until all are ready.
    pub(crate) async fn restart_all(&mut self) -> Result<()> {
        self.healed();
        for index in self.members.clone() {
            let cluster = self.cluster()?;
            if !cluster.is_running(index) {
                cluster.restart(index)?;
            }
        }
        self.cluster()?.wait_ready(HEAL_DEADLINE).await?;
        for (index, fault) in std::mem::take(&mut self.down) {
            if self.cluster()?.is_running(index) {
                self.faults.end(fault);
            } else {
                self.down.insert(index, fault);
            }
        }
        self.majority_back();
        Ok(())
    }

    /// Waits until a replica has caught up and holds every blob that is kept by now. Before that, damage to
    /// another one could hit the last copy.
    pub(crate) async fn whole_again(&mut self, index: usize) -> Result<()> {
        let blobs = if self.full_copies { self.ledger.kept_blobs() } else { BTreeSet::new() };
        let cluster = self.cluster()?;
        cluster.wait_caught_up(index, HEAL_DEADLINE).await?;
        for digest in &blobs {
            cluster.wait_held(index, digest, HEAL_DEADLINE).await?;
        }
        Ok(())
    }

    /// What a replica says about the cluster, as soon as it says something.
    pub(crate) async fn status(&mut self, index: usize) -> Result<Status> {
        let cluster = self.cluster()?;
        again(&format!("replica {index} tells its status"), || cluster.status(index)).await
    }

    /// Fails unless a replica's process answers.
    pub(crate) async fn lives(&mut self, index: usize) -> Result<()> {
        let cluster = self.cluster()?;
        again(&format!("replica {index} lives"), || async {
            let code = cluster.ops_status(index, "/livez").await?;
            ensure!(code == 200, "it answers {code}");
            Ok(())
        })
        .await
    }

    /// Pushes an image through a replica, and keeps it.
    pub(crate) async fn push_image(
        &mut self,
        index: usize,
        repository: &str,
        tag: &str,
        image: &Image,
    ) -> Result<()> {
        let client = self.client(index)?;
        again("an image is pushed", || client.push_image(repository, tag, image)).await?;
        self.ledger.keep_whole_image(repository, tag, image);
        Ok(())
    }

    /// Pushes a blob through a replica, and keeps it.
    pub(crate) async fn push_blob(
        &mut self,
        index: usize,
        repository: &str,
        blob: &Blob,
    ) -> Result<()> {
        let client = self.client(index)?;
        again("a blob is pushed", || client.push_blob(repository, blob)).await?;
        self.ledger.keep_blob(repository, &blob.digest);
        Ok(())
    }

    /// Waits until a replica takes a push again. That is work, and the blob is kept.
    pub(crate) async fn pushes_again(
        &mut self,
        index: usize,
        repository: &str,
        blob: &Blob,
        deadline: Duration,
    ) -> Result<()> {
        let client = self.client(index)?;
        let what = format!("a push through replica {index} succeeds again");
        wait_until(&what, deadline, || client.push_blob(repository, blob)).await?;
        self.ledger.wrote();
        self.ledger.keep_blob(repository, &blob.digest);
        Ok(())
    }

    /// Which replica leads.
    pub(crate) async fn leader(&mut self) -> Result<usize> {
        let cluster = self.cluster()?;
        wait_until("the replicas name one leader", HEAL_DEADLINE, || cluster.leader()).await
    }

    /// Everything works again from now on.
    pub(crate) fn healed(&mut self) {
        self.healed = Some(Instant::now());
    }

    /// A figure of this scenario alone.
    pub(crate) fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Whether an invariant is one that the scenario is about.
    fn about(&self, invariant: Invariant) -> bool {
        self.invariants.contains(&invariant)
    }
}

/// Asks until the answer is a good one. A refusal for a moment is always legal: an election may be running, and this
/// program may wait for a processor.
pub(crate) async fn again<T, F, Fut>(what: &str, ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    wait_until(what, HEAL_DEADLINE, ask).await
}

/// Asks until the answer is another one than "not now".
pub(crate) async fn answered<F, Fut>(what: &str, mut ask: F) -> Result<Answer>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Answer>>,
{
    again(what, || {
        let asked = ask();
        async move {
            let answer = asked.await?;
            ensure!(answer.status != 503, "{}", answer.describe());
            Ok(answer)
        }
    })
    .await
}
