//! Blobs that a replica should hold and lacks come by themselves, while it serves.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Cluster, ClusterOptions, Image, RegistryClient, wait_until};
use tokio::task::JoinSet;

const REPOSITORY: &str = "library/repaired";
const DEADLINE: Duration = Duration::from_secs(120);
const RATE: u64 = 4 * 1024 * 1024;

async fn metric(cluster: &Cluster, index: usize, name: &str) -> Result<u64> {
    let answer = RegistryClient::new(vec![cluster.ops_url(index)], tercet_chaos::Target::One)?
        .get("/metrics")
        .await?
        .expect(200)?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.split(' ').nth(1)).context(name.to_owned())?;
    Ok(value.parse()?)
}

async fn wait_metric(cluster: &Cluster, index: usize, name: &str, wanted: u64) -> Result<()> {
    let what = format!("{name} of replica {index} is {wanted}");
    wait_until(&what, DEADLINE, || async {
        let value = metric(cluster, index, name).await?;
        ensure!(value == wanted, "it is {value}");
        Ok(())
    })
    .await
}

async fn wait_all_held(cluster: &Cluster, index: usize, images: &[Image]) -> Result<()> {
    for image in images {
        for blob in &image.blobs {
            cluster.wait_held(index, &blob.digest, DEADLINE).await?;
        }
    }
    Ok(())
}

/// Pulls image after image, each once, until it is told to stop. Nothing is tried again.
async fn keep_pulling(
    client: RegistryClient,
    images: Arc<Vec<Image>>,
    first: usize,
    pulled: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    for number in first.. {
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let number = number % images.len();
        client
            .pull_image(REPOSITORY, &format!("v{number}"), &images[number])
            .await
            .with_context(|| format!("pull of v{number}"))?;
        pulled.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Row 20: the blob folder is lost and the metadata is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_blob_folder_fills_itself_under_pulls() -> Result<()> {
    let options =
        ClusterOptions::default().setting("limits", "repair_bytes_per_second", &RATE.to_string());
    let mut cluster = Cluster::start_with(options).await?;
    let images: Vec<Image> =
        (0..40).map(|seed| Image::random(seed, &[700_000, 300_000, 2_000])).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.client(number % 3)?.push_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    let victim = cluster.leader().await?;
    for index in 0..3 {
        wait_all_held(&cluster, index, &images).await?;
    }
    let before = cluster.status(victim).await?;
    cluster.kill9(victim)?;
    fs::remove_dir_all(cluster.replica(victim).data_dir.join("blobs"))?;
    let began = Instant::now();
    cluster.restart(victim)?;
    cluster.wait_ready(DEADLINE).await?;
    ensure!(cluster.status(victim).await?.node_id == before.node_id, "it is another member now");

    let images = Arc::new(images);
    let (pulled, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut pullers = JoinSet::new();
    for puller in 0..3 {
        // Two at the victim, one at the others.
        let client =
            if puller < 2 { cluster.client(victim)? } else { cluster.rotating_client()? };
        let first = puller * 13;
        pullers.spawn(keep_pulling(client, images.clone(), first, pulled.clone(), stop.clone()));
    }
    let filled = wait_until("it misses nothing", DEADLINE, || async {
        let bytes = metric(&cluster, victim, "tercet_repair_bytes_total").await?;
        // No more than flows in, and one bucket that is full at first. What is on its way counts as well.
        let most = RATE * (began.elapsed().as_secs() + 2) + 1024 * 1024;
        ensure!(bytes <= most, "repair has read {bytes} bytes after {:?}", began.elapsed());
        let missing = metric(&cluster, victim, "tercet_missing_blobs").await?;
        let compared = metric(&cluster, victim, "tercet_repair_compared_applied").await?;
        ensure!(compared > 0 && missing == 0, "{missing} blobs are missing");
        Ok(bytes)
    })
    .await;
    stop.store(true, Ordering::Release);
    while let Some(ended) = pullers.join_next().await {
        ended??;
    }
    let bytes = filled?;
    wait_all_held(&cluster, victim, &images).await?;
    println!(
        "120 blobs back after {:?}: {bytes} bytes by repair, {} through pulls; {} pulls, none failed",
        began.elapsed(),
        metric(&cluster, victim, "tercet_pulled_through_total").await?,
        pulled.load(Ordering::Relaxed)
    );
    ensure!(pulled.load(Ordering::Relaxed) > 0, "nobody pulled");

    // Once more, under the running process.
    fs::remove_dir_all(cluster.replica(victim).data_dir.join("blobs"))?;
    for (number, image) in images.iter().enumerate() {
        cluster.client(victim)?.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    wait_all_held(&cluster, victim, &images).await?;
    wait_metric(&cluster, victim, "tercet_missing_blobs", 0).await?;
    cluster.shut_down().await
}

/// Row 20, the reverse: the metadata is lost and the blob folder is not. Nothing of it is trusted, and
/// none of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn lost_metadata_make_a_new_member_that_keeps_its_blobs() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let images: Vec<Image> = (0..10).map(|seed| Image::random(seed, &[200_000, 2_000])).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.client(number % 3)?.push_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    for index in 0..3 {
        wait_all_held(&cluster, index, &images).await?;
    }
    let victim = cluster.leader().await?;
    let before = cluster.status(victim).await?;
    cluster.kill9(victim)?;
    let data = cluster.replica(victim).data_dir.clone();
    for entry in fs::read_dir(&data)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("blobs") {
            fs::remove_dir_all(&path)?;
        } else if path.is_file() {
            fs::remove_file(&path)?;
        }
    }
    cluster.restart(victim)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.wait_caught_up(victim, DEADLINE).await?;
    let after = cluster.status(victim).await?;
    ensure!(after.node_id != before.node_id, "the old id {} came back", before.node_id);
    ensure!(after.cluster_id == before.cluster_id, "it founded a cluster of its own");
    for (number, image) in images.iter().enumerate() {
        cluster.client(victim)?.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    ensure!(metric(&cluster, victim, "tercet_repair_bytes_total").await? == 0, "it fetched anew");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_copies_are_counted_and_a_lost_blob_is_told_from_one_that_is_away() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let image = Image::random(1, &[100_000, 2_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    for index in 0..3 {
        wait_all_held(&cluster, index, std::slice::from_ref(&image)).await?;
    }
    let layer = &image.blobs[0];
    let total = image.blobs.len() as u64;
    let leader = cluster.leader().await?;
    let away = (leader + 2) % 3;
    let here = [leader, (leader + 1) % 3];
    cluster.kill9(away)?;
    // All of them are placed on the one that is away.
    wait_metric(&cluster, leader, "tercet_under_replicated_blobs", total).await?;
    for index in here {
        cluster.kill9(index)?;
        fs::remove_file(cluster.replica(index).blob_path(&layer.digest)?)?;
    }
    for index in here {
        cluster.restart(index)?;
    }
    for index in here {
        wait_metric(&cluster, index, "tercet_missing_blobs", 1).await?;
        wait_until("it has been tried three times", DEADLINE, || async {
            let failed = metric(&cluster, index, "tercet_repair_failed_total").await?;
            ensure!(failed >= 3, "{failed} attempts");
            Ok(())
        })
        .await?;
        // The third may have it, and has.
        ensure!(
            metric(&cluster, index, "tercet_unrecoverable_blobs").await? == 0,
            "taken for lost"
        );
        ensure!(metric(&cluster, index, "tercet_oldest_missing_seconds").await? > 0, "no age");
    }
    cluster.restart(away)?;
    for index in here {
        wait_all_held(&cluster, index, std::slice::from_ref(&image)).await?;
        wait_metric(&cluster, index, "tercet_missing_blobs", 0).await?;
    }
    wait_until("the leader counts no blob with too few copies", DEADLINE, || async {
        let leader = cluster.leader().await?;
        let under = metric(&cluster, leader, "tercet_under_replicated_blobs").await?;
        ensure!(under == 0, "it counts {under}");
        Ok(())
    })
    .await?;

    // Now it is lost everywhere.
    for index in 0..3 {
        cluster.kill9(index)?;
        fs::remove_file(cluster.replica(index).blob_path(&layer.digest)?)?;
    }
    for index in 0..3 {
        cluster.restart(index)?;
    }
    for index in 0..3 {
        wait_metric(&cluster, index, "tercet_unrecoverable_blobs", 1).await?;
    }
    // Pushed again, it is back.
    cluster.client(away)?.push_image(REPOSITORY, "v1", &image).await?;
    for index in 0..3 {
        wait_all_held(&cluster, index, std::slice::from_ref(&image)).await?;
        wait_metric(&cluster, index, "tercet_unrecoverable_blobs", 0).await?;
        wait_metric(&cluster, index, "tercet_missing_blobs", 0).await?;
    }
    cluster.client(0)?.pull_image(REPOSITORY, "v1", &image).await?;
    cluster.shut_down().await
}
