//! All replicas killed at once lose nothing that was acknowledged.

use std::time::Duration;

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, Image, wait_until};
use tokio::task::JoinSet;

const REPOSITORY: &str = "library/restarted";
const DEADLINE: Duration = Duration::from_secs(60);
const WORKERS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn all_killed_at_once_and_started_again() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    for round in 0..2_u64 {
        let mut work = JoinSet::new();
        for worker in 0..WORKERS {
            let client = cluster.client(usize::try_from(worker)?)?;
            // Until the kill ends it: the acknowledged pushes are returned, the failed one is unknown.
            work.spawn(async move {
                let mut acknowledged = Vec::new();
                for number in 0..1_000 {
                    let tag = format!("round-{round}-{worker}-{number}");
                    let image = Image::random(round * 10_000 + worker * 1_000 + number, &[50_000]);
                    if client.push_image(REPOSITORY, &tag, &image).await.is_err() {
                        break;
                    }
                    acknowledged.push((tag, image));
                }
                acknowledged
            });
        }
        let watcher = cluster.client(0)?;
        wait_until("twenty pushes are acknowledged", DEADLINE, || async {
            let tags = watcher.tags(REPOSITORY).await?;
            let of_round =
                tags.iter().filter(|tag| tag.starts_with(&format!("round-{round}"))).count();
            ensure!(of_round >= 20, "{of_round} so far");
            Ok(())
        })
        .await?;
        for index in 0..3 {
            cluster.kill9(index)?;
        }
        let acknowledged: Vec<(String, Image)> = work.join_all().await.concat();
        println!("round {round}: {} pushes were acknowledged", acknowledged.len());
        ensure!(acknowledged.len() >= 17, "too few pushes to say anything: {}", acknowledged.len());
        for index in 0..3 {
            cluster.restart(index)?;
        }
        cluster.wait_ready(DEADLINE).await?;
        for (tag, image) in &acknowledged {
            for index in 0..3 {
                cluster.client(index)?.pull_image(REPOSITORY, tag, image).await?;
            }
        }
    }
    cluster.shut_down().await
}
