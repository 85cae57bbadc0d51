//! SIGTERM: what is in flight ends well, then the process does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt as _;
use reqwest::Method;
use tercet_chaos::{Cluster, Hasher, Image, LargeBlob, wait_until};

const REPOSITORY: &str = "library/drained";
/// Far more than sockets buffer: the pull is really in flight when the signal comes.
const SIZE: u64 = 96 * 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_in_flight_finishes_and_the_exit_code_is_0() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let blob = LargeBlob::new(7, SIZE);
    cluster.client(0)?.push_large(REPOSITORY, &blob).await?;
    let leader = cluster.leader().await?;
    let term_before = cluster.status(leader).await?.term;
    cluster.wait_held(leader, blob.digest(), DEADLINE).await?;

    let client = cluster.client(leader)?;
    let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest());
    let response = client.request(Method::GET, &path)?.send().await?.error_for_status()?;
    let mut stream = response.bytes_stream();
    let mut hasher = Hasher::like(blob.digest());
    hasher.update(&stream.next().await.context("no first byte")??);
    cluster.term(leader)?;
    wait_until("it says that it is not ready", DEADLINE, || async {
        // Its ops listener may be gone already when nothing but the pull holds the process.
        match cluster.ops_status(leader, "/readyz").await {
            Ok(200) => anyhow::bail!("still ready"),
            _ => Ok(()),
        }
    })
    .await?;
    // Leadership is handed over while the pull goes on, so the others need no election timeout.
    let other = (leader + 1) % 3;
    let image = Image::random(1, &[1_000]);
    let survivor = cluster.client(other)?;
    wait_until("writes go on elsewhere", DEADLINE, || {
        survivor.push_image(REPOSITORY, "during", &image)
    })
    .await?;
    while let Some(bytes) = stream.next().await {
        hasher.update(&bytes.context("the pull in flight was cut")?);
    }
    ensure!(hasher.finish() == blob.digest(), "the pull in flight was wrong");
    let status = cluster.wait_exit(leader, DEADLINE).await?;
    ensure!(status.code() == Some(0), "it ended with {status}");

    cluster.restart(leader)?;
    cluster.wait_ready(DEADLINE).await?;
    let term = cluster.status(other).await?.term;
    println!("term {term_before} before the drain, {term} after");
    client.pull_image(REPOSITORY, "during", &image).await?;
    cluster.shut_down().await
}
