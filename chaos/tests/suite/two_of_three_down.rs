//! The last replica still serves pulls, says that it may be stale, and refuses pushes at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::Method;
use tercet_chaos::{Answer, Blob, Cluster, Image, wait_until};

const REPOSITORY: &str = "library/last";
/// What the issue allows a refused push to take.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
/// What the closing PUT may take: the deadline of a write is ten seconds, and the machine may be busy.
const FINISH_MAX: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(60);

fn check_refused(answer: &Answer, took: Duration) -> Result<()> {
    ensure!(answer.status == 503, "wanted 503, got {}", answer.describe());
    let retry: u64 = answer.need_header("retry-after")?.parse()?;
    ensure!(retry >= 1, "Retry-After {retry}");
    answer.error_code()?;
    ensure!(took < REFUSAL_MAX, "it took {took:?}");
    Ok(())
}

async fn last_replica_serves(survivor: usize) -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let image = Image::random(1, &[300_000, 20_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    // A blob may be on two of three when its push is acknowledged; repair brings the third.
    for blob in &image.blobs {
        cluster.wait_held(survivor, &blob.digest, DEADLINE).await?;
    }
    cluster.wait_caught_up(survivor, DEADLINE).await?;
    let client = cluster.client(survivor)?;
    let others: Vec<usize> = (0..3).filter(|index| *index != survivor).collect();
    for index in &others {
        cluster.kill9(*index)?;
    }

    // A leader may believe its followers for as long as its lease runs: until then nobody else can
    // have taken a write, so its answers are not stale. Every one of them must be an answer.
    wait_until("the last replica knows that it is alone", DEADLINE, || async {
        let answer = client.pull_manifest(REPOSITORY, "v1").await?;
        ensure!(answer.is_stale(), "no stale warning yet");
        Ok(())
    })
    .await?;
    for reference in ["v1", &image.manifest.digest] {
        let start = Instant::now();
        let answer = client.pull_image(REPOSITORY, reference, &image).await?;
        ensure!(answer.is_stale(), "no stale warning on {reference}: {}", answer.describe());
        println!("the last replica served {reference} in {:?}", start.elapsed());
    }
    let blob = &image.blobs[1].digest;
    let answer = client.get(&format!("/v2/{REPOSITORY}/blobs/{blob}")).await?.expect(200)?;
    ensure!(answer.is_stale(), "no stale warning on a blob: {:?}", answer.headers);
    let answer = client.head(&format!("/v2/{REPOSITORY}/manifests/v1")).await?.expect(200)?;
    ensure!(answer.is_stale(), "no stale warning on HEAD: {:?}", answer.headers);

    let start = Instant::now();
    let answer = client.call(Method::POST, &format!("/v2/{REPOSITORY}/blobs/uploads/")).await?;
    check_refused(&answer, start.elapsed())?;
    let start = Instant::now();
    let bytes = image.manifest.bytes.clone();
    let answer = client.put_manifest(REPOSITORY, "v2", &image.media_type, bytes).await?;
    check_refused(&answer, start.elapsed())?;
    let start = Instant::now();
    let answer = client.delete(&format!("/v2/{REPOSITORY}/manifests/v1")).await?;
    check_refused(&answer, start.elapsed())?;
    let ready = cluster.ops_status(survivor, "/livez").await?;
    ensure!(ready == 200, "/livez answers {ready}");

    for index in others {
        cluster.restart(index)?;
    }
    cluster.wait_ready(DEADLINE).await?;
    let image = Image::random(2, &[1_000]);
    let push = || client.push_image(REPOSITORY, "v2", &image);
    wait_until("writes go on with all back", DEADLINE, push).await?;
    let answer = client.pull_manifest(REPOSITORY, "v2").await?;
    ensure!(!answer.is_stale(), "stale with all back: {}", answer.describe());
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_alone_serves_pulls_and_refuses_pushes() -> Result<()> {
    // The first configured member founds the cluster and so leads it at first; if it does not, the test
    // below has met a leader and this one a follower, and both promises are checked all the same.
    last_replica_serves(0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_alone_serves_pulls_and_refuses_pushes() -> Result<()> {
    last_replica_serves(2).await
}

/// The quorum goes while an upload is open: its end is refused, and can be tried again later.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_upload_is_refused_without_a_quorum() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let client = cluster.client(1)?;
    let blob = Blob::random(5, 100_000);
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, blob.bytes.slice(..60_000)).await?;
    cluster.kill9(0)?;
    cluster.kill9(2)?;
    let start = Instant::now();
    let answer = client.finish(&upload, &blob.digest, blob.bytes.slice(60_000..)).await?;
    let took = start.elapsed();
    ensure!(answer.status == 503, "wanted 503, got {}", answer.describe());
    answer.need_header("retry-after")?;
    ensure!(took < FINISH_MAX, "it took {took:?}");
    println!("the closing PUT was refused in {took:?}");
    cluster.restart(0)?;
    cluster.restart(2)?;
    cluster.wait_ready(DEADLINE).await?;
    wait_until("the blob can be pushed again", DEADLINE, || client.push_blob(REPOSITORY, &blob))
        .await?;
    client.pull_blob(REPOSITORY, &blob.digest).await?;
    cluster.shut_down().await
}
