//! Stored bytes that rot: found by reading them again, made good from another replica, loud where nobody can.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Cluster, Image, wait_until};

const REPOSITORY: &str = "library/rotting";
const DEADLINE: Duration = Duration::from_secs(60);

fn rot(cluster: &Cluster, index: usize, digest: &str, at: u64) -> Result<()> {
    let path = cluster.replica(index).blob_path(digest)?;
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(())
}

async fn metric(cluster: &Cluster, index: usize, name: &str) -> Result<f64> {
    let text = cluster.ops_text(index, "/metrics").await?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.split(' ').nth(1)).context(name.to_owned())?;
    Ok(value.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn scrub_finds_a_flipped_bit_and_fetches_a_good_copy() -> Result<()> {
    let cluster = Cluster::start().await?;
    let image = Image::random(1, &[3_000_000, 200_000, 10]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    for index in 0..3 {
        for blob in &image.blobs {
            cluster.wait_held(index, &blob.digest, DEADLINE).await?;
        }
    }
    let victim = image.blobs.iter().max_by_key(|blob| blob.bytes.len()).context("no blob")?;
    rot(&cluster, 1, &victim.digest, 2_500_000)?;
    let failed = cluster
        .command()
        .run_to_fail(&[
            "scrub",
            "--now",
            "--wait",
            "--config",
            &cluster.replica(1).config.display().to_string(),
        ])
        .await?;
    ensure!(failed.contains("1 blobs were not right"), "{failed}");
    ensure!(cluster.files(1, "quarantine")?.paths.len() == 2, "the evidence and its note");
    let path = cluster.replica(1).blob_path(&victim.digest)?;
    ensure!(fs::read(&path)? == victim.bytes, "the copy here is good again");
    ensure!(metric(&cluster, 1, "tercet_scrub_corrupt_total").await? == 1.0, "metric");
    let again = cluster.operate(1, &["scrub", "--now", "--wait"]).await?.stdout;
    ensure!(again.contains("done, 0 blobs were not right"), "{again}");
    cluster.client(1)?.pull_image(REPOSITORY, "v1", &image).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_rotten_everywhere_is_a_loss_that_names_its_images() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (lost, kept) = (Image::random(2, &[400_000]), Image::random(3, &[400_000]));
    cluster.client(0)?.push_image(REPOSITORY, "lost", &lost).await?;
    cluster.client(0)?.push_image(REPOSITORY, "kept", &kept).await?;
    let victim = lost.blobs.iter().max_by_key(|blob| blob.bytes.len()).context("no blob")?;
    for index in 0..3 {
        cluster.wait_held(index, &victim.digest, DEADLINE).await?;
        rot(&cluster, index, &victim.digest, 5)?;
    }
    // The first one finds it, and finds the others' copies wrong by asking for them.
    let config = cluster.replica(0).config.display().to_string();
    let arguments = ["scrub", "--now", "--wait", "--config", &config];
    cluster.command().run_to_fail(&arguments).await?;
    for index in 1..3 {
        // Succeeds where the wrong copy was met before.
        let _ = cluster.operate(index, &["scrub", "--now", "--wait"]).await;
    }
    wait_until("the loss is counted", DEADLINE, || async {
        let lost = metric(&cluster, 2, "tercet_unrecoverable_blobs").await?;
        ensure!(lost == 1.0, "{lost} lost");
        Ok(())
    })
    .await?;
    let report = cluster.operate(2, &["scrub"]).await?.stdout;
    let wanted = format!("LOST {}", victim.digest);
    ensure!(report.contains(&wanted) && report.contains(&format!("{REPOSITORY}:lost")), "{report}");
    ensure!(!report.contains(":kept"), "{report}");
    ensure!(cluster.replica(2).log_text().contains("DATA LOSS"), "the log says so");
    // Never wrong bytes: no answer, and no answer that looks like one.
    ensure!(cluster.client(2)?.pull_blob(REPOSITORY, &victim.digest).await.is_err(), "served");
    cluster.client(2)?.pull_image(REPOSITORY, "kept", &kept).await?;
    // Pushed again it is whole again.
    cluster.client(1)?.push_image(REPOSITORY, "lost", &lost).await?;
    wait_until("nothing is lost any more", Duration::from_secs(120), || async {
        let lost = metric(&cluster, 2, "tercet_unrecoverable_blobs").await?;
        ensure!(lost == 0.0, "{lost} lost");
        Ok(())
    })
    .await?;
    cluster.client(2)?.pull_image(REPOSITORY, "lost", &lost).await?;
    cluster.shut_down().await
}

/// The client gets the right bytes in one response, and the replica a good copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_local_copy_is_made_good_in_the_same_response() -> Result<()> {
    let cluster = Cluster::start().await?;
    let image = Image::random(4, &[6_000_000, 100_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    for index in 0..3 {
        for blob in &image.blobs {
            cluster.wait_held(index, &blob.digest, DEADLINE).await?;
        }
    }
    // One chunk with a flipped bit is seen before its first byte leaves.
    let small = image.blobs.iter().find(|blob| blob.bytes.len() == 100_000).context("no blob")?;
    rot(&cluster, 0, &small.digest, 50_000)?;
    let bytes = cluster.client(0)?.pull_blob(REPOSITORY, &small.digest).await?;
    ensure!(bytes == small.bytes, "wrong bytes");
    ensure!(metric(&cluster, 0, "tercet_read_failovers_total").await? == 1.0, "metric");
    cluster.wait_held(0, &small.digest, DEADLINE).await?;
    cluster.shut_down().await
}
