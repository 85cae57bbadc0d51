//! Volumes that fill up, by bytes and by inodes: `507`, nothing wrong visible, no process dies, and all is
//! well by itself when there is space again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use reqwest::Method;
use tercet_chaos::{
    Answer, Blob, Cluster, ClusterOptions, Image, LargeBlob, RegistryClient, Target, VolumeSpec,
    wait_until,
};

const REPOSITORY: &str = "library/full";
const START_DEADLINE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;
const VOLUME: VolumeSpec = VolumeSpec { bytes: 400 * MIB, inodes: None };
/// `limits.disk_headroom_bytes`: half of it is where pushes end, an eighth where everything does.
const HEADROOM: u64 = 64 * MIB;
const SCARCE: u64 = HEADROOM / 4;

fn options() -> ClusterOptions {
    ClusterOptions::default()
        .setting("limits", "disk_headroom_bytes", &HEADROOM.to_string())
        .setting("limits", "raft_reserve_bytes", &(16 * MIB).to_string())
}

/// Replicas on a small disk each.
async fn start(spec: VolumeSpec) -> Result<Cluster> {
    let mut cluster = Cluster::prepare(options()).await?;
    for index in 0..cluster.len() {
        cluster.give_volume(index, spec)?;
        cluster.restart(index)?;
    }
    cluster.wait_ready(START_DEADLINE).await?;
    Ok(cluster)
}

fn image(seed: u64) -> Image {
    Image::random(seed, &[200_000, 3_000])
}

/// Fails unless this is the answer of a full disk: an OCI error that says when to come back.
fn ensure_full(answer: Answer) -> Result<()> {
    let answer = answer.expect_error(507, "DENIED")?;
    answer.need_header("retry-after")?;
    Ok(())
}

async fn open(client: &RegistryClient) -> Result<Answer> {
    client.call(Method::POST, &format!("/v2/{REPOSITORY}/blobs/uploads/")).await
}

async fn put_tag(client: &RegistryClient, tag: &str, image: &Image) -> Result<Answer> {
    let bytes = image.manifest.bytes.clone();
    client.put_manifest(REPOSITORY, tag, &image.media_type, bytes).await
}

async fn wait_level(cluster: &Cluster, index: usize, levels: &[&str]) -> Result<()> {
    let name = cluster.replica(index).name.clone();
    wait_until(&format!("{name} says {levels:?}"), DEADLINE, || async {
        let status = cluster.status(index).await?;
        let member = status.member(&name).context("it is no member")?;
        let level = member.disk_level.as_deref().unwrap_or_default();
        ensure!(levels.contains(&level), "{level}");
        Ok(())
    })
    .await
}

/// The body of `/readyz`, which has to be a `200`.
async fn ready_text(cluster: &Cluster, index: usize) -> Result<String> {
    let ops = RegistryClient::new(vec![cluster.ops_url(index)], Target::One)?;
    let answer = ops.get("/readyz").await?.expect(200)?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// A push through this replica succeeds, now or soon.
async fn push_soon(cluster: &Cluster, index: usize, tag: &str, image: &Image) -> Result<()> {
    let client = cluster.client(index)?;
    let what = format!("a push through replica {index}");
    wait_until(&what, DEADLINE, || client.push_image(REPOSITORY, tag, image)).await
}

/// All of it through every replica, from a quorum's view.
async fn everywhere(cluster: &Cluster, images: &[(&str, &Image)]) -> Result<()> {
    for index in 0..cluster.len() {
        let client = cluster.client(index)?;
        for (tag, image) in images {
            wait_until("a pull of what was acknowledged", DEADLINE, || {
                client.pull_image(REPOSITORY, tag, image)
            })
            .await?;
        }
    }
    Ok(())
}

async fn ensure_alive(cluster: &Cluster) -> Result<()> {
    for index in 0..cluster.len() {
        let code = cluster.ops_status(index, "/livez").await.context("a process has died")?;
        ensure!(code == 200, "replica {index} answers {code} on /livez");
    }
    Ok(())
}

/// Whether a replica leads, as another one knows: one without room may not know by itself any more.
async fn leads(cluster: &Cluster, index: usize, asked: usize) -> Result<bool> {
    let leader = cluster.status(asked).await?.leader.context("no leader is known")?;
    Ok(leader == cluster.replica(index).name)
}

async fn ensure_no_uploads(cluster: &Cluster) -> Result<()> {
    for index in 0..cluster.len() {
        wait_until("no upload is left", DEADLINE, || async {
            let left = cluster.files(index, "uploads")?.paths;
            ensure!(left.is_empty(), "replica {index}: {left:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn another_than(cluster: &Cluster, index: usize) -> usize {
    (index + 1) % cluster.len()
}

/// One disk of three is full to the last byte, whether its replica leads or follows.
async fn one_is_full(fill: impl Fn(&Cluster, usize) -> Result<()>, spec: VolumeSpec) -> Result<()> {
    let cluster = start(spec).await?;
    let before = image(1);
    cluster.client(0)?.push_image(REPOSITORY, "before", &before).await?;
    let mut images = vec![("before", before)];

    for (round, tags) in
        [["of-follower", "after-follower"], ["of-leader", "after-leader"]].into_iter().enumerate()
    {
        let leader = cluster.leader().await?;
        let full = if round == 0 { another_than(&cluster, leader) } else { leader };
        let other = another_than(&cluster, full);
        fill(&cluster, full)?;

        let refused = cluster.client(full)?;
        ensure_full(open(&refused).await?)?;
        // Two of three have room: that is a write quorum, with the leadership in other hands if need be.
        let meanwhile = image(10 + round as u64);
        push_soon(&cluster, other, tags[0], &meanwhile).await?;
        images.push((tags[0], meanwhile));
        wait_level(&cluster, full, &["full", "writes-refused"]).await?;
        ensure!(!leads(&cluster, full, other).await?, "a replica without room still leads");
        wait_until("a ready replica says what it cannot do", DEADLINE, || async {
            let text = ready_text(&cluster, full).await?;
            ensure!(text.contains("507"), "{text}");
            Ok(())
        })
        .await?;
        // Nothing ends the pulls, the full replica's own included.
        let known = &images[0];
        for index in 0..cluster.len() {
            cluster.client(index)?.pull_image(REPOSITORY, known.0, &known.1).await?;
        }
        let newest = images.last().context("some were pushed")?;
        cluster.client(other)?.pull_image(REPOSITORY, newest.0, &newest.1).await?;
        ensure_alive(&cluster).await?;

        cluster.volume(full)?.free()?;
        let after = image(20 + round as u64);
        push_soon(&cluster, full, tags[1], &after).await?;
        images.push((tags[1], after));
        cluster.wait_caught_up(full, DEADLINE).await?;
        wait_level(&cluster, full, &["plenty"]).await?;
    }
    let all: Vec<(&str, &Image)> = images.iter().map(|(tag, image)| (*tag, image)).collect();
    everywhere(&cluster, &all).await?;
    ensure_no_uploads(&cluster).await?;
    cluster.shut_down().await
}

// Filling is synchronous; the pauses let the replica give its reserve up, so that this too is taken.
#[allow(clippy::disallowed_methods)]
#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_costs_no_push_through_the_others() -> Result<()> {
    one_is_full(
        |cluster, index| {
            let volume = cluster.volume(index)?;
            for _ in 0..5 {
                volume.fill(0)?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        },
        VOLUME,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_disk_without_inodes_costs_no_push_through_the_others() -> Result<()> {
    let spec = VolumeSpec { inodes: Some(4_000), ..VOLUME };
    one_is_full(|cluster, index| cluster.volume(index)?.fill_inodes(0), spec).await
}

/// Every disk is full: pushes are refused with 507 and for that reason, pulls go on, and fresh.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_disks_are_full_pulls_go_on_and_deletes_help() -> Result<()> {
    let cluster = start(VOLUME).await?;
    let (kept, goes) = (image(1), image(2));
    let client = cluster.client(0)?;
    client.push_image(REPOSITORY, "kept", &kept).await?;
    client.push_image(REPOSITORY, "goes", &goes).await?;

    // Little is left: what grows is refused, what shrinks is not.
    for index in 0..cluster.len() {
        cluster.volume(index)?.fill(SCARCE)?;
    }
    for index in 0..cluster.len() {
        let client = cluster.client(index)?;
        ensure_full(open(&client).await?)?;
        ensure_full(put_tag(&client, "another", &kept).await?)?;
        let pulled = client.pull_image(REPOSITORY, "kept", &kept).await?;
        ensure!(!pulled.is_stale(), "{}", pulled.describe());
    }
    let path = format!("/v2/{REPOSITORY}/manifests/{}", goes.manifest.digest);
    client.delete(&path).await?.expect(202)?;
    client.get_manifest(REPOSITORY, "goes").await?.expect(404)?;

    // Nothing is left.
    for index in 0..cluster.len() {
        cluster.volume(index)?.fill(0)?;
    }
    for index in 0..cluster.len() {
        wait_level(&cluster, index, &["full", "writes-refused"]).await?;
        let client = cluster.client(index)?;
        ensure_full(open(&client).await?)?;
        ensure_full(put_tag(&client, "another", &kept).await?)?;
        client.pull_image(REPOSITORY, "kept", &kept).await?;
        client.pull_image(REPOSITORY, &kept.manifest.digest, &kept).await?;
    }
    ensure_alive(&cluster).await?;
    ensure_no_uploads(&cluster).await?;

    for index in 0..cluster.len() {
        cluster.volume(index)?.free()?;
    }
    let after = image(3);
    for index in 0..cluster.len() {
        push_soon(&cluster, index, "after", &after).await?;
        wait_level(&cluster, index, &["plenty"]).await?;
        cluster.wait_caught_up(index, DEADLINE).await?;
    }
    everywhere(&cluster, &[("kept", &kept), ("after", &after)]).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_disk_has_inodes_pushes_are_refused_until_there_are_some() -> Result<()> {
    let cluster = start(VolumeSpec { inodes: Some(4_000), ..VOLUME }).await?;
    let kept = image(1);
    cluster.client(0)?.push_image(REPOSITORY, "kept", &kept).await?;
    for index in 0..cluster.len() {
        cluster.volume(index)?.fill_inodes(0)?;
    }
    for index in 0..cluster.len() {
        let client = cluster.client(index)?;
        ensure_full(open(&client).await?)?;
        ensure_full(put_tag(&client, "another", &kept).await?)?;
        client.pull_image(REPOSITORY, "kept", &kept).await?;
        wait_level(&cluster, index, &["full"]).await?;
    }
    ensure_alive(&cluster).await?;
    for index in 0..cluster.len() {
        cluster.volume(index)?.free()?;
    }
    let after = image(2);
    for index in 0..cluster.len() {
        push_soon(&cluster, index, "after", &after).await?;
    }
    everywhere(&cluster, &[("kept", &kept), ("after", &after)]).await?;
    cluster.shut_down().await
}

/// The disks of two replicas fill up: the third has room, and that is not enough copies.
#[tokio::test(flavor = "multi_thread")]
async fn fewer_disks_with_room_than_a_write_quorum_is_507() -> Result<()> {
    let cluster = start(VOLUME).await?;
    let before = image(1);
    cluster.client(0)?.push_image(REPOSITORY, "before", &before).await?;
    let roomy = cluster.leader().await?;
    for index in (0..cluster.len()).filter(|index| *index != roomy) {
        cluster.volume(index)?.fill(HEADROOM - 8 * MIB)?;
    }
    let client = cluster.client(roomy)?;
    for size in [100_000, 20_000_000] {
        let blob = Blob::random(size as u64, size);
        let upload = client.open_upload(REPOSITORY).await?;
        let answer = client.finish(&upload, &blob.digest, blob.bytes.clone()).await?;
        ensure_full(answer).with_context(|| format!("{size} bytes"))?;
        // Not acknowledged, so not there.
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        client.head(&path).await?.expect(404)?;
    }
    // Metadata is small: their headroom takes it.
    put_tag(&client, "again", &before).await?.expect(201)?;
    for index in 0..cluster.len() {
        cluster.volume(index)?.free()?;
    }
    push_soon(&cluster, roomy, "after", &image(2)).await?;
    ensure_alive(&cluster).await?;
    cluster.shut_down().await
}

/// The disk fills up below an upload that has begun.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fills_the_disk_ends_without_a_trace() -> Result<()> {
    let cluster = start(VOLUME).await?;
    let client = cluster.client(0)?;

    // Larger than what is left: the other holders are as full.
    let chunk = Blob::random(7, 8 << 20);
    let mut upload = client.open_upload(REPOSITORY).await?;
    let refused = loop {
        ensure!(upload.offset < VOLUME.bytes, "more than the volume has was taken");
        let answer = client.patch(&upload, upload.offset, chunk.bytes.clone()).await?;
        if answer.status != 202 {
            break answer;
        }
        upload.offset += chunk.bytes.len() as u64;
        upload.follow(&answer)?;
    };
    println!("refused after {} MiB", upload.offset >> 20);
    ensure_full(refused)?;
    client.get(&upload.location).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    ensure_no_uploads(&cluster).await?;

    // The same in one request. A client that does not listen while it sends may miss why it was cut off.
    let large = LargeBlob::new(8, 380 * MIB);
    let upload = client.open_upload(REPOSITORY).await?;
    let request = client
        .request(Method::PATCH, &upload.location)?
        .timeout(large.deadline())
        .body(reqwest::Body::wrap_stream(large.stream()));
    if let Ok(answer) = client.send(request).await {
        ensure_full(answer)?;
    }
    client.get(&upload.location).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    client.head(&format!("/v2/{REPOSITORY}/blobs/{}", large.digest())).await?.expect(404)?;
    ensure_no_uploads(&cluster).await?;

    // Somebody else takes the space while a chunked upload rests.
    let blob = Blob::random(8, 3_000_000);
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, blob.bytes.slice(..1_000_000)).await?;
    // The reserves, which are given up then, are taken as well.
    for _ in 0..5 {
        for index in 0..cluster.len() {
            cluster.volume(index)?.fill(0)?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let chunk = client.patch(&upload, upload.offset, blob.bytes.slice(1_000_000..)).await?;
    ensure_full(chunk)?;
    ensure_no_uploads(&cluster).await?;
    for index in 0..cluster.len() {
        let blobs = cluster.files(index, "blobs")?.paths;
        ensure!(blobs.is_empty(), "replica {index}: {blobs:?}");
        cluster.volume(index)?.free()?;
    }
    wait_until("the same blob goes in", DEADLINE, || client.push_blob(REPOSITORY, &blob)).await?;
    client.pull_blob(REPOSITORY, &blob.digest).await?;
    ensure_alive(&cluster).await?;
    cluster.shut_down().await
}

/// A replica that is started on a full disk starts, or says why it does not; with space it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_loses_nothing() -> Result<()> {
    let mut cluster = start(VOLUME).await?;
    let images: Vec<Image> = (0..20).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.client(0)?.push_image(REPOSITORY, &format!("n{number}"), image).await?;
    }
    let leader = cluster.leader().await?;
    let full = another_than(&cluster, leader);
    cluster.kill9(full)?;
    // Its reserve first: with that it would simply start.
    std::fs::remove_file(cluster.replica(full).data_dir.join("reserve"))?;
    cluster.volume(full)?.fill(0)?;
    cluster.restart(full)?;
    // Both are right: what RocksDB had allocated ahead for its logs comes back when they are opened, or too
    // late for that.
    let url = cluster.ops_url(full);
    let ops = RegistryClient::new(vec![url], Target::One)?;
    let started = wait_until("it has started or said why not", DEADLINE, || async {
        if cluster.replica(full).log_text().contains("the volume is full") {
            return Ok(false);
        }
        ops.get("/readyz").await?.expect(200)?;
        Ok(true)
    })
    .await?;
    println!("a start on a full disk: {}", if started { "started" } else { "refused" });
    if !started {
        let status = cluster.wait_exit(full, DEADLINE).await?;
        ensure!(status.code() == Some(74), "{status}");
        let log = cluster.replica(full).log_text();
        ensure!(log.contains("nothing is lost"), "{log}");
    }
    cluster.volume(full)?.free()?;
    if !started {
        cluster.restart(full)?;
    }
    cluster.wait_ready(DEADLINE).await?;
    cluster.wait_caught_up(full, DEADLINE).await?;
    for (number, image) in images.iter().enumerate() {
        cluster.client(full)?.pull_image(REPOSITORY, &format!("n{number}"), image).await?;
    }

    // With the reserve a full disk is no reason not to start.
    let reserve = cluster.replica(full).data_dir.join("reserve");
    wait_until("the reserve is made again", DEADLINE, || async {
        ensure!(reserve.exists(), "it is not");
        Ok(())
    })
    .await?;
    cluster.kill9(full)?;
    cluster.volume(full)?.fill(0)?;
    cluster.restart(full)?;
    cluster.wait_ready(DEADLINE).await?;
    ensure!(!cluster.replica(full).data_dir.join("reserve").exists(), "the reserve is still there");
    cluster.client(full)?.pull_image(REPOSITORY, "n3", &images[3]).await?;
    cluster.volume(full)?.free()?;
    push_soon(&cluster, full, "after", &image(99)).await?;
    wait_until("the reserve is back", DEADLINE, || async {
        ensure!(cluster.replica(full).data_dir.join("reserve").exists(), "it is not");
        Ok(())
    })
    .await?;
    cluster.shut_down().await
}

/// The answer reaches a client that has sent its body before it listens.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_one_request_is_told_that_the_disk_is_full() -> Result<()> {
    let cluster = start(VOLUME).await?;
    for index in 0..cluster.len() {
        cluster.volume(index)?.fill(SCARCE)?;
    }
    let client = cluster.client(0)?;
    let blob = Blob::new(Bytes::from(vec![7; 12_000_000]));
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", blob.digest);
    let request = client.request(Method::POST, &path)?.body(blob.bytes);
    ensure_full(client.send(request).await?)?;
    cluster.shut_down().await
}
