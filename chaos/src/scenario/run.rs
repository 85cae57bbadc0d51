//! One run: a cluster, the load on it, and what a scenario does to both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use super::{Length, faults::Faults};
use crate::{
    check::{check_kept, same_views, wait_converged},
    client::RegistryClient,
    cluster::Cluster,
    network::Network,
    options::ClusterOptions,
    wait::wait_until,
    workload::{ATTEMPT_PATIENCE, Invariant, Ledger, Load, LoadOptions, Targets, first_write},
};

/// A client gives up on an answer after this: longer than any deadline of the registry for a metadata operation.
const CLIENT_PATIENCE: Duration = Duration::from_secs(8);
/// Writes resume within this with a majority up (I8).
const RESUME_MAX: Duration = Duration::from_secs(10);
/// The same, on a machine that other tests use at the same time.
const RESUME_MAX_SHARED: Duration = Duration::from_secs(20);
/// Until replicas that run again are ready, and until all hold everything (I5).
pub(crate) const HEAL_DEADLINE: Duration = Duration::from_secs(90);

/// What a scenario works with.
#[derive(Debug)]
pub struct Run {
    pub(crate) seed: u64,
    pub(crate) length: Length,
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
    pub(crate) resumed: Vec<Duration>,
    pub(crate) full_replication: Option<Duration>,
    pub(crate) tags_checked: (usize, usize),
    pub(crate) checked_pulls: usize,
    cluster: Option<Cluster>,
    load: Option<Load>,
    /// Loads started so far.
    loads: u64,
    load_started: Option<Instant>,
    load_time: Duration,
    healed: Option<Instant>,
}

impl Run {
    pub(crate) fn new(seed: u64, length: Length) -> Self {
        Self {
            seed,
            length,
            random: StdRng::seed_from_u64(seed),
            ledger: Arc::default(),
            targets: Targets::default(),
            faults: Faults::default(),
            figures: BTreeMap::new(),
            members: Vec::new(),
            full_copies: true,
            network: None,
            resumed: Vec::new(),
            full_replication: None,
            tags_checked: (0, 0),
            checked_pulls: 0,
            cluster: None,
            load: None,
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

    /// Starts the cluster; a full run has the machine for itself.
    pub(crate) async fn start(&mut self, options: ClusterOptions) -> Result<()> {
        self.start_prepared(options, |_| Ok(())).await
    }

    /// Starts the cluster after `prepare` has looked at what is on its disk; no process runs then.
    pub(crate) async fn start_prepared(
        &mut self,
        options: ClusterOptions,
        prepare: impl FnOnce(&mut Cluster) -> Result<()>,
    ) -> Result<()> {
        let options = if self.length == Length::Full { options.alone() } else { options };
        let mut cluster = Cluster::prepare(options).await?;
        prepare(&mut cluster)?;
        for index in 0..cluster.len() {
            cluster.restart(index)?;
        }
        cluster.wait_ready(HEAL_DEADLINE).await?;
        self.faults.note(&format!("{} replicas are ready", cluster.len()));
        self.members = (0..cluster.len()).collect();
        self.cluster = Some(cluster);
        self.retarget()
    }

    /// Starts the cluster with a host for each replica.
    pub(crate) async fn start_on_hosts(&mut self, options: ClusterOptions) -> Result<()> {
        let network = Network::start(u8::try_from(options.replicas)?).await?;
        let options = options.on_hosts(network.hosts());
        self.network = Some(network);
        self.start(options).await
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
        Ok(self.cluster()?.client(index)?.patient_for(CLIENT_PATIENCE))
    }

    /// Lets the load ask the members, as they are now.
    pub(crate) fn retarget(&mut self) -> Result<()> {
        let members = self.members.clone();
        let clients = members.iter().map(|index| self.client(*index)).collect::<Result<_>>()?;
        self.targets.set(clients);
        Ok(())
    }

    /// Starts the load, and waits until it has done something.
    pub(crate) async fn load(&mut self, options: LoadOptions) -> Result<()> {
        let load =
            Load::start(&self.targets, &self.ledger, options, self.seed.wrapping_add(self.loads))
                .await?;
        self.loads += 1;
        self.load = Some(load);
        self.load_started = Some(Instant::now());
        self.progress(20).await
    }

    /// Ends the load.
    pub(crate) async fn stop_load(&mut self) -> Result<()> {
        if let Some(load) = self.load.take() {
            load.stop().await?;
        }
        if let Some(started) = self.load_started.take() {
            self.load_time += started.elapsed();
        }
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
        let bound = self.of(RESUME_MAX_SHARED, RESUME_MAX);
        let mut clients = Vec::new();
        for index in left {
            clients.push(self.client(*index)?.patient_for(ATTEMPT_PATIENCE));
        }
        let number = self.resumed.len();
        let took = first_write(&self.ledger, &clients, &format!("{}-{number}", self.seed)).await?;
        self.faults.note(&format!("a write was acknowledged after {took:?}"));
        self.resumed.push(took);
        if took > bound {
            let what = format!("writes resumed after {took:?} with a majority up");
            self.ledger.violated(Invariant::I8, what);
        }
        Ok(())
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

    /// `kill -9`.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        self.cluster()?.kill9(index)?;
        self.faults.injected("kill -9", &format!("replica {index}"));
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
        self.cluster()?.wait_ready(HEAL_DEADLINE).await
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

    /// Heals what is still hurt, ends the load, waits until all replicas are one again, and checks everything that
    /// was promised. Then the cluster is stopped, which must go well too. Does nothing without a cluster.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        if self.cluster.is_none() {
            return Ok(());
        }
        if let Some(network) = &self.network {
            network.heal()?;
        }
        self.faults.note("everything is healed");
        self.restart_all().await?;
        let healed = self.healed.unwrap_or_else(Instant::now);
        self.stop_load().await?;
        let blobs = if self.full_copies { self.ledger.kept_blobs() } else { BTreeSet::new() };
        let members = self.members.clone();
        wait_converged(self.cluster()?, &members, &blobs, HEAL_DEADLINE).await?;
        self.full_replication = Some(healed.elapsed());
        self.faults.note("all replicas agree and hold everything");
        let clients: Vec<RegistryClient> =
            members.iter().map(|index| self.client(*index)).collect::<Result<_>>()?;
        self.checked_pulls = check_kept(&self.ledger, &clients).await;
        same_views(&clients, &self.ledger.repositories()).await?;
        self.tags_checked = self.ledger.check_tags();
        self.faults.note("all promises are checked");
        if let Some(cluster) = self.cluster.take() {
            cluster.shut_down().await?;
        }
        Ok(())
    }
}
