//! The same content pushed by many at once ends as one.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use tercet_chaos::{Blob, Cluster, Image, wait_until};
use tokio::task::JoinSet;

const REPOSITORY: &str = "library/same";
const DEADLINE: Duration = Duration::from_secs(30);

/// One file per replica, and no session left.
async fn check_one_file(cluster: &Cluster, blob: &Blob) -> Result<()> {
    for index in 0..cluster.len() {
        cluster.wait_held(index, &blob.digest, DEADLINE).await?;
        wait_until("no upload is left", DEADLINE, || async {
            let left = cluster.files(index, "uploads")?.paths;
            ensure!(left.is_empty(), "replica {index} has {left:?}");
            Ok(())
        })
        .await?;
        let blobs = cluster.files(index, "blobs")?.paths;
        ensure!(blobs.len() == 1, "replica {index} has {blobs:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_opens_of_one_digest_end_in_one_blob() -> Result<()> {
    let cluster = Cluster::start().await?;
    let blob = Blob::random(1, 400_000);
    let (one, two) = (cluster.client(0)?, cluster.client(1)?);
    let mut first = one.open_upload(REPOSITORY).await?;
    let mut second = two.open_upload(REPOSITORY).await?;
    for start in [0, 100_000, 200_000, 300_000] {
        let chunk = blob.bytes.slice(start..start + 100_000);
        one.append(&mut first, chunk.clone()).await?;
        two.append(&mut second, chunk).await?;
    }
    let (left, right) = tokio::try_join!(
        one.finish(&first, &blob.digest, Bytes::new()),
        two.finish(&second, &blob.digest, Bytes::new()),
    )?;
    left.expect(201)?;
    right.expect(201)?;
    check_one_file(&cluster, &blob).await?;
    for index in 0..3 {
        cluster.client(index)?.pull_blob(REPOSITORY, &blob.digest).await?;
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pushes_of_one_digest_end_in_one_blob() -> Result<()> {
    let cluster = Cluster::start().await?;
    let blob = Blob::random(2, 200_000);
    let mut pushes = JoinSet::new();
    for number in 0..60 {
        let client = cluster.client(number % 3)?;
        let blob = blob.clone();
        pushes.spawn(async move { client.push_blob(REPOSITORY, &blob).await });
    }
    while let Some(ended) = pushes.join_next().await {
        ended??;
    }
    check_one_file(&cluster, &blob).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_tag_leave_the_same_winner_everywhere() -> Result<()> {
    let cluster = Cluster::start().await?;
    let images: Vec<Image> = (0..12).map(|seed| Image::random(seed, &[5_000])).collect();
    let mut pushes = JoinSet::new();
    for (number, image) in images.iter().cloned().enumerate() {
        let client = cluster.client(number % 3)?;
        pushes.spawn(async move { client.push_image(REPOSITORY, "contested", &image).await });
    }
    while let Some(ended) = pushes.join_next().await {
        ended??;
    }
    let mut found = Vec::new();
    for index in 0..3 {
        let answer = cluster.client(index)?.pull_manifest(REPOSITORY, "contested").await?;
        found.push(answer.need_header("docker-content-digest")?.to_owned());
    }
    ensure!(found.iter().all(|digest| digest == &found[0]), "different winners: {found:?}");
    ensure!(
        images.iter().any(|image| image.manifest.digest == found[0]),
        "nobody pushed {found:?}"
    );
    cluster.shut_down().await
}

/// Compare-and-swap: of many that want to create one tag, one does.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_of_one_tag_one_wins() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut pushes = JoinSet::new();
    for number in 0..9_usize {
        let client = cluster.client(number % 3)?;
        pushes.spawn(async move {
            let image = Image::random(number as u64, &[1_000]);
            for blob in &image.blobs {
                client.push_blob(REPOSITORY, blob).await?;
            }
            let path = format!("/v2/{REPOSITORY}/manifests/once");
            let request = client
                .request(reqwest::Method::PUT, &path)?
                .header("content-type", image.media_type.as_str())
                .header("if-none-match", "*")
                .body(image.manifest.bytes.clone());
            anyhow::Ok((client.send(request).await?.status, image.manifest.digest))
        });
    }
    let mut winners = Vec::new();
    while let Some(ended) = pushes.join_next().await {
        match ended?? {
            (201, digest) => winners.push(digest),
            (status, _) => ensure!(status == 412, "a loser got {status}"),
        }
    }
    ensure!(winners.len() == 1, "winners: {winners:?}");
    for index in 0..3 {
        let answer = cluster.client(index)?.pull_manifest(REPOSITORY, "once").await?;
        ensure!(
            answer.need_header("docker-content-digest")? == winners[0],
            "{}",
            answer.describe()
        );
    }
    cluster.shut_down().await
}
