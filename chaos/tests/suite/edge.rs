//! A replica with the role `edge`: it serves and takes everything, keeps little, and never counts.

use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::Method;
use tercet_chaos::{Blob, Cluster, ClusterOptions, Image, wait_until};

const REPOSITORY: &str = "library/edge";
const DEADLINE: Duration = Duration::from_secs(60);
/// What the edge may keep.
const CACHE_BYTES: u64 = 1_000_000;
const EDGE: usize = 3;

/// Bytes of the blobs that the edge has now. A file may be evicted between the list and the look.
fn kept(cluster: &Cluster) -> Result<u64> {
    let folder = cluster.replica(EDGE).data_dir.join("blobs");
    let files = cluster.files(EDGE, "blobs")?.paths;
    let sizes = files.iter().filter_map(|path| std::fs::metadata(folder.join(path)).ok());
    Ok(sizes.map(|file| file.len()).sum())
}

/// Three voters and an edge that keeps a megabyte.
async fn with_edge() -> Result<Cluster> {
    let mut cluster = Cluster::start().await?;
    let edge = cluster.grow_with(|options: ClusterOptions| {
        let bound = CACHE_BYTES.to_string();
        options.setting("node", "role", "\"edge\"").setting("limits", "edge_cache_bytes", &bound)
    })?;
    ensure!(edge == EDGE);
    cluster.wait_ready(DEADLINE).await?;
    wait_until("the edge is a learner of its own kind", DEADLINE, || async {
        let status = cluster.status(cluster.leader().await?).await?;
        let member = status.member("tercet-3").ok_or_else(|| anyhow::anyhow!("no member yet"))?;
        ensure!(member.kind == "edge" && member.role == "learner", "{member:?}");
        Ok(())
    })
    .await?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_serves_takes_pushes_and_stays_within_its_bound() -> Result<()> {
    let mut cluster = with_edge().await?;
    let edge = cluster.client(EDGE)?;
    let images: Vec<Image> = (0..12).map(|seed| Image::random(seed, &[300_000, 4_000])).collect();
    for (number, image) in images.iter().enumerate() {
        // Pushed through the edge, in one request and in chunks; nothing of it stays there.
        edge.push_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    let left = kept(&cluster)?;
    ensure!(left == 0, "a push left {left} bytes on the edge");
    for index in 0..3 {
        for blob in images.iter().flat_map(|image| &image.blobs) {
            cluster.wait_held(index, &blob.digest, DEADLINE).await?;
        }
    }
    let mut most = 0;
    for round in 0..2 {
        for (number, image) in images.iter().enumerate() {
            let answer = edge.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
            ensure!(!answer.is_stale(), "stale through the edge: {}", answer.describe());
            most = most.max(kept(&cluster)?);
        }
        println!("round {round}: the edge kept at most {most} of {CACHE_BYTES} bytes");
    }
    ensure!(most <= CACHE_BYTES, "the edge kept {most} bytes");
    ensure!(most > CACHE_BYTES / 2, "the edge keeps nothing: {most} bytes");
    // What was pulled last is there, and served without the others.
    let last = images.last().unwrap();
    for blob in &last.blobs {
        cluster.wait_held(EDGE, &blob.digest, DEADLINE).await?;
    }

    // The order and the bound outlive a kill.
    cluster.kill9(EDGE)?;
    cluster.restart(EDGE)?;
    cluster.wait_ready(DEADLINE).await?;
    for (number, image) in images.iter().enumerate() {
        edge.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
        let after = kept(&cluster)?;
        ensure!(after <= CACHE_BYTES, "the edge kept {after} bytes after a restart");
    }

    // A blob larger than the bound passes through.
    let large = Blob::random(77, 3_000_000);
    edge.push_blob(REPOSITORY, &large).await?;
    edge.pull_blob(REPOSITORY, &large.digest).await?;
    ensure!(kept(&cluster)? <= CACHE_BYTES);

    // Without the edge, and without a voter, everything goes on.
    cluster.kill9(EDGE)?;
    let image = Image::random(100, &[50_000]);
    cluster.client(0)?.push_image(REPOSITORY, "without-edge", &image).await?;
    cluster.restart(EDGE)?;
    cluster.wait_ready(DEADLINE).await?;
    let leader = cluster.leader().await?;
    cluster.kill9(leader)?;
    let push = || edge.push_image(REPOSITORY, "without-leader", &image);
    wait_until("pushes go on through the edge", DEADLINE, push).await?;
    for (number, image) in images.iter().enumerate() {
        edge.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    cluster.restart(leader)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_never_makes_a_quorum() -> Result<()> {
    let mut cluster = with_edge().await?;
    let image = Image::random(1, &[50_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    let edge = cluster.client(EDGE)?;
    edge.pull_image(REPOSITORY, "v1", &image).await?;
    for blob in &image.blobs {
        cluster.wait_held(EDGE, &blob.digest, DEADLINE).await?;
    }
    cluster.kill9(0)?;
    cluster.kill9(1)?;
    for index in [2, EDGE] {
        let client = cluster.client(index)?;
        wait_until("pushes are refused", DEADLINE, || async {
            let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
            let answer = client.call(Method::POST, &uploads).await?;
            ensure!(answer.status == 503, "{}", answer.describe());
            let bytes = image.manifest.bytes.clone();
            let answer = client.put_manifest(REPOSITORY, "v2", &image.media_type, bytes).await?;
            ensure!(answer.status == 503, "{}", answer.describe());
            Ok(())
        })
        .await?;
        let answer = client.pull_image(REPOSITORY, "v1", &image).await?;
        ensure!(answer.is_stale(), "not marked stale: {}", answer.describe());
    }
    for index in [0, 1] {
        cluster.restart(index)?;
    }
    cluster.wait_ready(DEADLINE).await?;
    wait_until("pushes go on", DEADLINE, || edge.push_image(REPOSITORY, "v2", &image)).await?;
    let status = cluster.status(cluster.leader().await?).await?;
    let role = status.member("tercet-3").map(|member| member.role.clone());
    ensure!(role.as_deref() == Some("learner"), "the edge is {role:?}");
    // It cannot be made a voter by hand either.
    let config = cluster.replica(0).config.display().to_string();
    let arguments = ["member", "promote", "tercet-3", "--yes", "--config", &config];
    let said = cluster.command().run_to_fail(&arguments).await?;
    ensure!(said.contains("edge"), "{said}");
    cluster.shut_down().await
}
