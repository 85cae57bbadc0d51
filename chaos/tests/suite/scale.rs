//! A cluster that grows, shrinks and is restarted while clients push and pull.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tercet_chaos::{Answer, Cluster, ClusterOptions, Image, RegistryClient, wait_until};
use tokio::{sync::RwLock, task::JoinSet};

const REPOSITORY: &str = "library/scale";
const DEADLINE: Duration = Duration::from_secs(120);
const PULLERS: usize = 3;
const LAYERS: [usize; 2] = [120_000, 3_000];
/// Pushes and pulls that have to happen between two changes.
const WORK: usize = 6;

/// What the clients share.
#[derive(Clone)]
struct Shared {
    /// One per replica, gone or not: a client that is refused asks the next, as container runtimes do.
    endpoints: Arc<RwLock<Vec<RegistryClient>>>,
    pushed: Arc<RwLock<Vec<(String, Image)>>>,
    pulls: Arc<AtomicUsize>,
    pushes: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Shared {
    fn new() -> Self {
        Self {
            endpoints: Arc::default(),
            pushed: Arc::default(),
            pulls: Arc::default(),
            pushes: Arc::default(),
            stop: Arc::default(),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Clients of all replicas from now on.
    async fn know(&self, cluster: &Cluster) -> Result<()> {
        let clients = (0..cluster.len()).map(|index| cluster.client(index));
        *self.endpoints.write().await = clients.collect::<Result<_>>()?;
        Ok(())
    }

    /// Waits until the clients have done some work, so that no change happens in a silent moment.
    async fn some_work(&self) -> Result<()> {
        let (pushes, pulls) =
            (self.pushes.load(Ordering::Relaxed), self.pulls.load(Ordering::Relaxed));
        wait_until("the clients do some work", DEADLINE, || async {
            let pushed = self.pushes.load(Ordering::Relaxed) - pushes;
            let pulled = self.pulls.load(Ordering::Relaxed) - pulls;
            ensure!(pushed >= WORK / 2 && pulled >= WORK, "{pushed} pushes, {pulled} pulls");
            Ok(())
        })
        .await
    }
}

/// `GET` from the first endpoint that answers. Refused and `503` mean the next one; an answer that
/// breaks off is a failed pull.
async fn get(endpoints: &[RegistryClient], first: usize, path: &str) -> Result<Bytes> {
    let mut last = None;
    for step in 0..endpoints.len() {
        let client = &endpoints[(first + step) % endpoints.len()];
        let request = client
            .request(reqwest::Method::GET, path)?
            .header("accept", "application/vnd.oci.image.manifest.v1+json");
        match request.send().await {
            Ok(response) if response.status() == 503 => last = Some("503".to_owned()),
            Ok(response) => {
                let answer = Answer::read(response).await.context("an answer broke off")?;
                return Ok(answer.expect(200)?.body);
            }
            Err(error) => last = Some(format!("{error:?}")),
        }
    }
    bail!("no replica answers GET {path}: {last:?}")
}

async fn pull(shared: &Shared, number: usize) -> Result<()> {
    let endpoints = shared.endpoints.read().await.clone();
    let (tag, image) = {
        let pushed = shared.pushed.read().await;
        let index =
            if number.is_multiple_of(2) { pushed.len() - 1 } else { number * 7_919 % pushed.len() };
        pushed[index].clone()
    };
    let manifest = get(&endpoints, number, &format!("/v2/{REPOSITORY}/manifests/{tag}")).await?;
    ensure!(manifest == image.manifest.bytes, "{tag} is another manifest");
    for blob in &image.blobs {
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        ensure!(get(&endpoints, number, &path).await? == blob.bytes, "{} differs", blob.digest);
    }
    Ok(())
}

/// Pulls until told to stop; the first pull that fails ends it.
async fn pull_on(shared: Shared, worker: usize) -> Result<()> {
    let mut number = worker;
    while !shared.stopped() {
        pull(&shared, number).await.with_context(|| format!("pull {number}"))?;
        shared.pulls.fetch_add(1, Ordering::Relaxed);
        number += PULLERS;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Pushes one image after the other, each until it is acknowledged by some replica. Returns the longest.
async fn push_on(shared: Shared) -> Result<Duration> {
    let (mut number, mut longest) = (0_usize, Duration::ZERO);
    while !shared.stopped() {
        let image = Image::random(number as u64, &LAYERS);
        let tag = format!("v{number}");
        let (began, turn) = (Instant::now(), AtomicUsize::new(number));
        wait_until("a push is acknowledged", DEADLINE, || async {
            let endpoints = shared.endpoints.read().await.clone();
            let client = &endpoints[turn.fetch_add(1, Ordering::Relaxed) % endpoints.len()];
            client.push_image(REPOSITORY, &tag, &image).await
        })
        .await?;
        longest = longest.max(began.elapsed());
        shared.pushed.write().await.push((tag, image));
        shared.pushes.fetch_add(1, Ordering::Relaxed);
        number += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(longest)
}

struct Load {
    shared: Shared,
    pullers: JoinSet<Result<()>>,
    pusher: JoinSet<Result<Duration>>,
}

impl Load {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let shared = Shared::new();
        shared.know(cluster).await?;
        let mut pusher = JoinSet::new();
        pusher.spawn(push_on(shared.clone()));
        wait_until("the first push", DEADLINE, || async {
            ensure!(!shared.pushed.read().await.is_empty(), "none yet");
            Ok(())
        })
        .await?;
        let mut pullers = JoinSet::new();
        for worker in 0..PULLERS {
            pullers.spawn(pull_on(shared.clone(), worker));
        }
        Ok(Self { shared, pullers, pusher })
    }

    /// A client that failed is told now, not at the end.
    fn check(&mut self) -> Result<()> {
        while let Some(ended) = self.pullers.try_join_next() {
            ended??;
        }
        if let Some(ended) = self.pusher.try_join_next() {
            ended??;
        }
        Ok(())
    }

    async fn work(&mut self) -> Result<()> {
        self.check()?;
        self.shared.some_work().await?;
        self.check()
    }

    /// Ends the load. Every acknowledged push is pulled once more from every replica.
    async fn end(mut self, cluster: &Cluster, replicas: &[usize]) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.pullers.join_next().await {
            ended??;
        }
        let longest = self.pusher.join_next().await.context("there is a pusher")???;
        let pushed = self.shared.pushed.read().await;
        for index in replicas {
            let client = cluster.client(*index)?;
            for (tag, image) in pushed.iter() {
                client.pull_image(REPOSITORY, tag, image).await?;
            }
        }
        println!(
            "{} pushes (longest {longest:?}), {} pulls, 0 failed pulls",
            pushed.len(),
            self.shared.pulls.load(Ordering::Relaxed)
        );
        Ok(())
    }
}

async fn wait_voters(cluster: &Cluster, asked: usize, voters: usize) -> Result<()> {
    wait_until("the voters are as many as wanted", DEADLINE, || async {
        let members = cluster.status(asked).await?.members;
        let voting = members.iter().filter(|member| member.role != "learner").count();
        ensure!(voting == voters && members.len() == voters, "{members:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_to_three_to_five_to_three_without_a_failed_pull() -> Result<()> {
    let mut cluster = Cluster::start_with(ClusterOptions::default().replicas(1)).await?;
    let mut load = Load::start(&cluster).await?;
    load.work().await?;
    for size in [3_usize, 5] {
        while cluster.len() < size {
            let began = Instant::now();
            let index = cluster.grow()?;
            cluster.wait_caught_up(index, DEADLINE).await?;
            println!("{} replicas after {:?}", cluster.len(), began.elapsed());
            load.shared.know(&cluster).await?;
            load.work().await?;
        }
        wait_voters(&cluster, 0, size).await?;
        let list = cluster.operate(0, &["member", "list"]).await?;
        println!("{}", list.stdout);
        ensure!(list.stdout.contains(&format!("of {size} must answer")), "{}", list.stdout);
    }
    // The leader first, then another, which may lead by then.
    let leader = cluster.leader().await?;
    let other = (0..5).find(|index| *index != leader).unwrap();
    for victim in [leader, other] {
        let name = cluster.replica(victim).name.clone();
        let asked = (0..5).find(|index| ![leader, other].contains(index)).unwrap();
        let began = Instant::now();
        let removed = cluster.operate(asked, &["member", "remove", &name, "--yes"]).await?;
        println!("{name} removed after {:?}\n{}", began.elapsed(), removed.all());
        wait_until("the removed replica closes its registry", DEADLINE, || async {
            ensure!(cluster.client(victim)?.get("/v2/").await.is_err(), "it still answers");
            Ok(())
        })
        .await?;
        let said = cluster.status(victim).await?.refused.unwrap_or_default();
        ensure!(said.contains("TERCET-M04"), "{said}");
        load.work().await?;
        cluster.term(victim)?;
        let ended = cluster.wait_exit(victim, DEADLINE).await?;
        ensure!(ended.success(), "it stopped with {ended}");
        load.work().await?;
    }
    let left: Vec<usize> = (0..5).filter(|index| ![leader, other].contains(index)).collect();
    wait_voters(&cluster, left[0], 3).await?;
    load.end(&cluster, &left).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_without_a_failed_pull() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let mut load = Load::start(&cluster).await?;
    load.work().await?;
    for index in 0..3 {
        let began = Instant::now();
        cluster.term(index)?;
        let ended = cluster.wait_exit(index, DEADLINE).await?;
        ensure!(ended.success(), "it stopped with {ended}");
        load.check()?;
        cluster.restart(index)?;
        cluster.wait_ready(DEADLINE).await?;
        cluster.wait_caught_up(index, DEADLINE).await?;
        println!("{} is back after {:?}", cluster.replica(index).name, began.elapsed());
        load.work().await?;
    }
    load.end(&cluster, &[0, 1, 2]).await?;
    cluster.shut_down().await
}
