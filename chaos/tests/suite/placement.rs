//! More replicas than copies: each blob is on as many as it should be, in different zones, and moves when
//! a replica goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, ClusterOptions, Image, Launch, wait_until};

const REPOSITORY: &str = "library/placed";
const COPIES: usize = 3;
const DEADLINE: Duration = Duration::from_secs(120);

fn five() -> ClusterOptions {
    // A copy too many usually stays for an hour.
    ClusterOptions::default().replicas(5).setting("limits", "surplus_after_seconds", "1")
}

async fn push_images(cluster: &Cluster, count: u64) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for number in 0..count {
        let image = Image::random(number, &[60_000, 3_000]);
        let client = cluster.client(usize::try_from(number)? % cluster.len())?;
        client.push_image(REPOSITORY, &format!("v{number}"), &image).await?;
        images.push(image);
    }
    Ok(images)
}

/// Which of `replicas` have a file of each blob that there is.
fn holders(cluster: &Cluster, replicas: &[usize]) -> Result<BTreeMap<PathBuf, BTreeSet<usize>>> {
    let mut holders: BTreeMap<PathBuf, BTreeSet<usize>> = BTreeMap::new();
    for index in replicas {
        for path in cluster.files(*index, "blobs")?.paths {
            holders.entry(path).or_default().insert(*index);
        }
    }
    Ok(holders)
}

async fn wait_settled(
    cluster: &Cluster,
    replicas: &[usize],
    blobs: usize,
) -> Result<BTreeMap<PathBuf, BTreeSet<usize>>> {
    wait_until("each blob is on exactly three replicas", DEADLINE, || async {
        let holders = holders(cluster, replicas)?;
        ensure!(holders.len() == blobs, "{} of {blobs} blobs are there", holders.len());
        let unsettled = holders.values().filter(|on| on.len() != COPIES).count();
        ensure!(unsettled == 0, "{unsettled} of {blobs} blobs are on more or fewer than {COPIES}");
        Ok(holders)
    })
    .await
}

async fn pull_everywhere(cluster: &Cluster, replicas: &[usize], images: &[Image]) -> Result<()> {
    for (number, image) in images.iter().enumerate() {
        let client = cluster.client(replicas[number % replicas.len()])?;
        client.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    Ok(())
}

fn blobs(images: &[Image]) -> usize {
    let digests: BTreeSet<&str> = images
        .iter()
        .flat_map(|image| image.blobs.iter().map(|blob| blob.digest.as_str()))
        .collect();
    digests.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_blob_is_on_three_of_five_and_moves_when_one_goes() -> Result<()> {
    let mut cluster = Cluster::start_with(five()).await?;
    let images = push_images(&cluster, 30).await?;
    let all = [0, 1, 2, 3, 4];
    let before = wait_settled(&cluster, &all, blobs(&images)).await?;
    for index in all {
        let held = before.values().filter(|on| on.contains(&index)).count();
        // Three fifths of ninety, give or take four standard deviations.
        ensure!((35..=73).contains(&held), "replica {index} holds {held} of {}", before.len());
    }
    pull_everywhere(&cluster, &all, &images).await?;
    // What came through in a pull is too much again, and goes again.
    wait_settled(&cluster, &all, blobs(&images)).await?;

    let leader = cluster.leader().await?;
    let gone = (leader + 1) % 5;
    let name = cluster.replica(gone).name.clone();
    let told = cluster.operate(leader, &["member", "remove", &name, "--yes"]).await?;
    println!("{}", told.stdout);
    let left: Vec<usize> = all.into_iter().filter(|index| *index != gone).collect();
    // The command waits until the copies have moved: none is needed from the disk that is lost now.
    if cluster.is_running(gone) {
        cluster.kill9(gone)?;
    }
    cluster.wipe(gone)?;
    let after = wait_settled(&cluster, &left, blobs(&images)).await?;
    for (blob, on) in &after {
        let mut stayed: BTreeSet<usize> = before[blob].clone();
        stayed.remove(&gone);
        ensure!(stayed.is_subset(on), "{} moved from {stayed:?} to {on:?}", blob.display());
    }
    pull_everywhere(&cluster, &left, &images).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_in_different_zones() -> Result<()> {
    let zones = ["east", "east", "west", "west", "north"];
    let mut cluster = Cluster::prepare(five()).await?;
    for (index, zone) in zones.iter().enumerate() {
        cluster.set_launch(index, Launch::default().with("TERCET_NODE_ZONE", zone));
        cluster.restart(index)?;
    }
    cluster.wait_ready(Duration::from_secs(60)).await?;
    let images = push_images(&cluster, 20).await?;
    let all = [0, 1, 2, 3, 4];
    // Copies that were made before the zones were known move.
    wait_until("each blob is in three zones", DEADLINE, || async {
        for (blob, on) in &wait_settled(&cluster, &all, blobs(&images)).await? {
            let used: BTreeSet<&str> = on.iter().map(|index| zones[*index]).collect();
            ensure!(used.len() == COPIES, "{} is in {used:?} only", blob.display());
        }
        Ok(())
    })
    .await?;
    pull_everywhere(&cluster, &all, &images).await?;
    // A whole zone is lost: every blob is in the others.
    cluster.kill9(4)?;
    pull_everywhere(&cluster, &[0, 1, 2, 3], &images).await?;
    cluster.shut_down().await
}
