//! A killed replica costs nobody anything that was acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Cluster, Image, RegistryClient, wait_until};
use tokio::{sync::RwLock, task::JoinSet};

const PUSHES: usize = 50;
const PULLS: usize = 500;
const PUSHERS: usize = 2;
const PULLERS: usize = 4;
/// The kill comes when this many of the pushes are acknowledged: in the middle of work.
const KILL_AFTER: usize = 10;
/// An election takes 1 to 2 s by configuration; this is for a busy machine.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "library/survivor";

type Acknowledged = Arc<RwLock<Vec<(String, Image)>>>;

/// Tries until acknowledged: `503` while the survivors elect is an honest answer, a lost push is not.
async fn push_until_acknowledged(
    client: &RegistryClient,
    tag: &str,
    image: &Image,
) -> Result<Duration> {
    let start = Instant::now();
    wait_until("a push is acknowledged", WRITE_DEADLINE, || {
        client.push_image(REPOSITORY, tag, image)
    })
    .await?;
    Ok(start.elapsed())
}

/// Pushes until the shared count is used up. Returns the longest time to an acknowledgement.
async fn push_all(
    clients: Vec<RegistryClient>,
    round: usize,
    next: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    acknowledged: Acknowledged,
) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= PUSHES {
            return Ok(longest);
        }
        let tag = format!("kill-{round}-{number}");
        let image = Image::random((round * 1_000 + number) as u64, &[200_000, 5_000]);
        let client = &clients[number % clients.len()];
        longest = longest.max(push_until_acknowledged(client, &tag, &image).await?);
        acknowledged.write().await.push((tag, image));
        done.fetch_add(1, Ordering::Release);
    }
}

/// Pulls acknowledged images; the first failure ends it. No retries.
async fn pull_all(
    clients: Vec<RegistryClient>,
    next: Arc<AtomicUsize>,
    acknowledged: Acknowledged,
) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= PULLS {
            return Ok(());
        }
        let (tag, image) = {
            let list = acknowledged.read().await;
            // Half of them the newest: what was acknowledged last is what a crash would lose.
            let index =
                if number.is_multiple_of(2) { list.len() - 1 } else { number * 7_919 % list.len() };
            list[index].clone()
        };
        let client = &clients[number % clients.len()];
        let reference = if number.is_multiple_of(3) { &image.manifest.digest } else { &tag };
        client
            .pull_image(REPOSITORY, reference, &image)
            .await
            .with_context(|| format!("pull {number}, of {tag}"))?;
    }
}

/// Kills one replica during 50 pushes and 500 pulls through the two others.
async fn kill_during_load(
    cluster: &mut Cluster,
    victim: usize,
    acknowledged: &Acknowledged,
) -> Result<()> {
    let survivors: Vec<RegistryClient> = (0..cluster.len())
        .filter(|index| *index != victim)
        .map(|index| cluster.client(index))
        .collect::<Result<_>>()?;
    let (next_push, next_pull) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(AtomicUsize::new(0));
    let mut pushers = JoinSet::new();
    let mut pullers = JoinSet::new();
    for _ in 0..PUSHERS {
        let clients = survivors.clone();
        let work = push_all(clients, victim, next_push.clone(), done.clone(), acknowledged.clone());
        pushers.spawn(work);
    }
    for _ in 0..PULLERS {
        pullers.spawn(pull_all(survivors.clone(), next_pull.clone(), acknowledged.clone()));
    }
    wait_until("some pushes are acknowledged", WRITE_DEADLINE, || async {
        let done = done.load(Ordering::Acquire);
        ensure!(done >= KILL_AFTER, "{done} so far");
        Ok(())
    })
    .await?;
    let pulls_before = next_pull.load(Ordering::Relaxed);
    cluster.kill9(victim)?;
    let mut longest = Duration::ZERO;
    while let Some(ended) = pushers.join_next().await {
        longest = longest.max(ended??);
    }
    while let Some(ended) = pullers.join_next().await {
        ended??;
    }
    println!(
        "replica {victim} killed after {KILL_AFTER} of {PUSHES} pushes and {pulls_before} of {PULLS} pulls; longest push {longest:?}"
    );
    Ok(())
}

async fn all_there(client: &RegistryClient, acknowledged: &Acknowledged) -> Result<()> {
    for (tag, image) in acknowledged.read().await.iter() {
        client.pull_image(REPOSITORY, tag, image).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_replica_may_be_killed_during_pushes_and_pulls() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let acknowledged: Acknowledged = Arc::default();
    for number in 0..5 {
        let image = Image::random(900_000 + number, &[100_000]);
        let tag = format!("before-{number}");
        push_until_acknowledged(&cluster.client(0)?, &tag, &image).await?;
        acknowledged.write().await.push((tag, image));
    }
    // The leader first, then the other two, so that each replica is the victim once.
    let first = cluster.leader().await?;
    for offset in 0..3 {
        let victim = (first + offset) % 3;
        let led = cluster.leader().await? == victim;
        println!(
            "round {offset}: replica {victim}, {}",
            if led { "the leader" } else { "a follower" }
        );
        kill_during_load(&mut cluster, victim, &acknowledged).await?;
        for index in (0..3).filter(|index| *index != victim) {
            all_there(&cluster.client(index)?, &acknowledged).await?;
        }
        cluster.restart(victim)?;
        cluster.wait_ready(CATCH_UP_DEADLINE).await?;
        cluster.wait_caught_up(victim, CATCH_UP_DEADLINE).await?;
        // On its own disk, not through the others.
        for (_, image) in acknowledged.read().await.iter() {
            for blob in &image.blobs {
                cluster.wait_held(victim, &blob.digest, CATCH_UP_DEADLINE).await?;
            }
        }
        all_there(&cluster.client(victim)?, &acknowledged).await?;
    }
    cluster.shut_down().await
}
