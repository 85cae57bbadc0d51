//! A replica that lost its disk comes back as a new member and fills itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, Image, wait_until};

const REPOSITORY: &str = "library/wiped";
const DEADLINE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_replica_gets_a_new_id_and_all_blobs() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let images: Vec<Image> = (0..20).map(|seed| Image::random(seed, &[150_000, 2_000])).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.client(number % 3)?.push_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    let leader = cluster.leader().await?;
    for victim in [leader, (leader + 1) % 3] {
        let before = cluster.status(victim).await?;
        cluster.kill9(victim)?;
        cluster.wipe(victim)?;
        cluster.restart(victim)?;
        cluster.wait_ready(DEADLINE).await?;
        let after = cluster.status(victim).await?;
        ensure!(after.node_id != before.node_id, "the old id {} came back", before.node_id);
        ensure!(after.cluster_id == before.cluster_id, "it founded a cluster of its own");
        cluster.wait_caught_up(victim, DEADLINE).await?;
        for index in 0..3 {
            // The old id must be gone, or a majority would be counted over four.
            wait_until("three members, none with the old id", DEADLINE, || async {
                let members = cluster.status(index).await?.members;
                let known: Vec<u64> = members.iter().map(|member| member.node_id).collect();
                ensure!(known.len() == 3 && !known.contains(&before.node_id), "members {known:?}");
                Ok(())
            })
            .await?;
        }
        for image in &images {
            for blob in &image.blobs {
                cluster.wait_held(victim, &blob.digest, DEADLINE).await?;
            }
        }
        for (number, image) in images.iter().enumerate() {
            cluster.client(victim)?.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
        }
    }
    let image = Image::random(1_000, &[10_000]);
    cluster.rotating_client()?.push_image(REPOSITORY, "after", &image).await?;
    cluster.shut_down().await
}
