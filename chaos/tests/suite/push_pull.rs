//! What is pushed through one replica can be pulled at once through every other.

use anyhow::Result;
use tercet_chaos::{Cluster, Image, RegistryClient};

const PUSHES: u64 = 100;

/// Pushes through `pusher`, and right after each acknowledgement pulls by tag and by digest through each
/// of the others.
async fn push_and_pull(
    pusher: &RegistryClient,
    pullers: &[RegistryClient],
    seed: u64,
) -> Result<()> {
    for number in 0..PUSHES {
        let image = Image::random(seed + number, &[64 * 1024, 3_000]);
        let tag = format!("round-{number}");
        pusher.push_image("library/pushed", &tag, &image).await?;
        for puller in pullers {
            let by_tag = puller.pull_image("library/pushed", &tag, &image).await?;
            assert!(!by_tag.is_stale(), "a healthy cluster answers stale: {}", by_tag.describe());
            let digest = by_tag.need_header("docker-content-digest")?;
            assert_eq!(digest, image.manifest.digest, "round {number}");
            puller.pull_manifest("library/pushed", &image.manifest.digest).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn push_through_one_replica_pull_at_once_through_the_others() -> Result<()> {
    let cluster = Cluster::start().await?;
    let pullers = [cluster.client(1)?, cluster.client(2)?];
    push_and_pull(&cluster.client(0)?, &pullers, 1_000).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_single_request_of_a_push_goes_to_the_next_replica() -> Result<()> {
    let cluster = Cluster::start().await?;
    let pullers = [cluster.client(0)?, cluster.client(1)?, cluster.client(2)?];
    push_and_pull(&cluster.rotating_client()?, &pullers, 2_000).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_one_upload_go_to_different_replicas() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    for seed in 0..10 {
        // Post, seven chunks and put are nine requests a blob: over the rounds every replica gets every step.
        let image = Image::random(3_000 + seed, &[700_000]);
        for blob in &image.blobs {
            client.push_blob_chunked("library/chunks", blob, 100_000).await?;
        }
        client.push_manifest("library/chunks", "latest", &image).await?;
        for replica in 0..cluster.len() {
            cluster.client(replica)?.pull_image("library/chunks", "latest", &image).await?;
        }
    }
    cluster.shut_down().await
}
