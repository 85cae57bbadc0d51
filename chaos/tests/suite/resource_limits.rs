//! A replica that may not have all it would like: few open files, little memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tercet_chaos::{
    Cluster, ClusterOptions, Image, LargeBlob, Launch, MemoryGroup, RegistryClient, Target,
    wait_until,
};
use tokio::{net::TcpStream, task::JoinSet};

const REPOSITORY: &str = "library/limited";
const START_DEADLINE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(60);
const OPEN_FILES: &str = "--nofile=256:256";
/// More than the process may have open at all.
const FLOOD: usize = 400;
const MEMORY: u64 = 256 * 1024 * 1024;
const WORKERS: u64 = 4;
const IMAGES_PER_WORKER: u64 = 12;

async fn start(launches: Vec<Launch>) -> Result<Cluster> {
    let mut cluster = Cluster::prepare(ClusterOptions::default()).await?;
    for (index, launch) in launches.into_iter().enumerate() {
        cluster.set_launch(index, launch);
        cluster.restart(index)?;
    }
    cluster.wait_ready(START_DEADLINE).await?;
    Ok(cluster)
}

/// 256 open files, and more connections than that to one replica after the other: it refuses, the others do
/// not notice, and it is well again when they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_leaves_files_for_everything_else() -> Result<()> {
    let limited = Launch::default().through(&["prlimit", OPEN_FILES]);
    let mut cluster = start(vec![limited; 3]).await?;
    let first = Image::random(1, &[300_000, 5_000]);
    cluster.client(0)?.push_image(REPOSITORY, "first", &first).await?;

    for flooded in 0..cluster.len() {
        let address = cluster.registry_host(flooded);
        let mut flood = Vec::new();
        for _ in 0..FLOOD {
            flood.push(TcpStream::connect(&address).await?);
        }
        // Refused or left waiting for no longer than a dead connection is kept; never a broken answer.
        let impatient = cluster.client(flooded)?.patient_for(Duration::from_secs(2));
        let path = format!("/v2/{REPOSITORY}/manifests/first");
        let (mut refused, mut served) = (0, 0);
        for _ in 0..20 {
            match impatient.get(&path).await {
                Ok(answer) if answer.status == 503 => refused += 1,
                Ok(answer) => {
                    answer.expect(200)?;
                    served += 1;
                }
                Err(_) => refused += 1,
            }
        }
        println!("replica {flooded}, flooded: {refused} of 20 requests refused, {served} served");
        ensure!(refused > 0, "the flood was none");
        let ops = RegistryClient::new(vec![cluster.ops_url(flooded)], Target::One)?;
        ops.get("/livez").await?.expect(200)?;
        ops.get("/metrics").await?.expect(200)?;

        // A push through the others has the flooded replica among its holders.
        let other = (flooded + 1) % cluster.len();
        let tag = format!("during-{flooded}");
        let image = Image::random(10 + flooded as u64, &[2_000_000, 5_000]);
        let client = cluster.client(other)?;
        wait_until("a push through another", DEADLINE, || {
            client.push_image(REPOSITORY, &tag, &image)
        })
        .await?;
        client.pull_image(REPOSITORY, "first", &first).await?;

        drop(flood);
        let client = cluster.client(flooded)?;
        wait_until("the flooded replica serves again", DEADLINE, || {
            client.pull_image(REPOSITORY, &tag, &image)
        })
        .await?;
        client.push_image(REPOSITORY, &format!("after-{flooded}"), &image).await?;
        cluster.wait_ready(DEADLINE).await?;
    }
    for index in 0..cluster.len() {
        let log = cluster.replica(index).log_text();
        ensure!(
            log.contains("ulimit -n"),
            "replica {index} did not say that its limits are lowered"
        );
        ensure!(!log.contains("Too many open files"), "replica {index} ran out of files");
    }
    cluster.shut_down().await
}

/// Pushes and pulls of small and large layers within 256 MiB for each replica, page cache included.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_256_mib_of_memory_is_not_killed() -> Result<()> {
    let groups: Vec<MemoryGroup> =
        (0..3).map(|_| MemoryGroup::new(MEMORY)).collect::<Result<_>>()?;
    let mut cluster = start(groups.iter().map(MemoryGroup::launch).collect()).await?;
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let clients = Arc::new(clients);
    let began = Instant::now();
    let mut work = JoinSet::new();
    for worker in 0..WORKERS {
        let clients = Arc::clone(&clients);
        work.spawn(async move { push_and_pull(&clients, worker).await });
    }
    for seed in 0..2 {
        let clients = Arc::clone(&clients);
        work.spawn(async move {
            let blob = LargeBlob::new(900 + seed, 512 * 1024 * 1024);
            let (to, from) = (seed as usize, (seed as usize + 1) % 3);
            clients[to].push_large(REPOSITORY, &blob).await?;
            clients[from].pull_large(REPOSITORY, &blob).await?;
            anyhow::Ok(blob.size() * 2)
        });
    }
    let mut bytes = 0;
    while let Some(ended) = work.join_next().await {
        bytes += ended??;
    }
    println!("{} MiB pushed and pulled in {:?}", bytes >> 20, began.elapsed());
    for (index, group) in groups.iter().enumerate() {
        let memory = cluster.memory(index)?;
        println!(
            "replica {index}: {} MiB resident at most, {} MiB with page cache, {} kills",
            memory.peak >> 20,
            group.peak()? >> 20,
            group.kills()?
        );
        ensure!(group.kills()? == 0, "replica {index} was killed for its memory");
        ensure!(group.peak()? <= MEMORY, "the bound was none");
        ensure!(memory.peak < MEMORY * 3 / 4, "replica {index}: {memory:?}");
    }
    cluster.wait_ready(DEADLINE).await?;
    cluster.shut_down().await
}

/// Images of layers from 1 KiB to 64 MiB, each pushed through one replica and pulled through another. Returns
/// how many bytes that were.
async fn push_and_pull(clients: &[RegistryClient], worker: u64) -> Result<u64> {
    let mut bytes = 0;
    for number in 0..IMAGES_PER_WORKER {
        let seed = worker * 1_000 + number;
        let largest = if number == IMAGES_PER_WORKER / 2 { 64 << 20 } else { 4 << 20 };
        let image = Image::random(seed, &[1 << 10, 100 << 10, largest]);
        let tag = format!("w{worker}-{number}");
        let at = |step: u64| {
            let index = usize::try_from((seed + step) % 3).unwrap_or_default();
            clients.get(index).context("three clients")
        };
        at(0)?.push_image(REPOSITORY, &tag, &image).await?;
        at(1)?.pull_image(REPOSITORY, &tag, &image).await?;
        bytes += image.blobs.iter().map(|blob| blob.bytes.len() as u64 * 2).sum::<u64>();
    }
    Ok(bytes)
}
