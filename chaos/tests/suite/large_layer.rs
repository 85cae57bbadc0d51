//! A 1 GiB layer goes through with flat memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, ClusterOptions, LargeBlob};
use tokio::task::JoinSet;

const SIZE: u64 = 1024 * 1024 * 1024;
const PULLS: usize = 64;
/// What the issue allows each replica.
const RESIDENT_MAX: u64 = 150 * 1024 * 1024;
const REPAIR_DEADLINE: Duration = Duration::from_secs(120);
const REPOSITORY: &str = "library/large";

/// The most that was ever resident: the kernel keeps the peak, so no sample can miss it.
fn check_memory(cluster: &Cluster, step: &str) -> Result<()> {
    for index in 0..cluster.len() {
        let memory = cluster.memory(index)?;
        let mebibytes = |bytes: u64| bytes / (1024 * 1024);
        println!(
            "{step}: replica {index} resident {} MiB, peak {} MiB",
            mebibytes(memory.resident),
            mebibytes(memory.peak)
        );
        ensure!(memory.peak < RESIDENT_MAX, "{step}: replica {index} had {} bytes", memory.peak);
    }
    Ok(())
}

fn speed(bytes: u64, start: Instant) -> String {
    let seconds = start.elapsed().as_secs_f64();
    format!("{:.1} s, {:.0} MB/s", seconds, bytes as f64 / 1e6 / seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_and_64_pulls_of_it_need_little_memory() -> Result<()> {
    let blob = LargeBlob::new(42, SIZE);
    let cluster = Cluster::start_with(ClusterOptions::default().alone()).await?;
    check_memory(&cluster, "start")?;

    let start = Instant::now();
    cluster.client(0)?.push_large(REPOSITORY, &blob).await?;
    println!("push: {}", speed(SIZE, start));
    check_memory(&cluster, "push")?;

    let start = Instant::now();
    cluster.client(1)?.pull_large(REPOSITORY, &blob).await?;
    println!("pull through another replica: {}", speed(SIZE, start));
    check_memory(&cluster, "pull")?;

    for index in 0..cluster.len() {
        cluster.wait_held(index, blob.digest(), REPAIR_DEADLINE).await?;
    }
    let start = Instant::now();
    let mut pulls = JoinSet::new();
    for number in 0..PULLS {
        let client = cluster.client(number % cluster.len())?;
        let blob = blob.clone();
        pulls.spawn(async move { client.pull_large_sampled(REPOSITORY, &blob).await });
    }
    while let Some(ended) = pulls.join_next().await {
        ended??;
    }
    println!("{PULLS} pulls at once: {}", speed(SIZE * PULLS as u64, start));
    check_memory(&cluster, "64 pulls")?;
    cluster.shut_down().await
}
