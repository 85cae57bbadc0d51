//! Upload sessions whose replica froze or died: another goes on, the old one does no harm, and what nobody
//! comes back for goes from every disk.

use std::io;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Method};
use tercet_chaos::{Answer, Blob, Cluster, ClusterOptions, RegistryClient, Upload, wait_until};
use tokio::sync::mpsc;

const REPOSITORY: &str = "library/fenced";
const DEADLINE: Duration = Duration::from_secs(60);

async fn ask(client: &RegistryClient, upload: &Upload) -> Result<Answer> {
    client.call(Method::GET, &upload.location).await
}

/// Waits until somebody says how far the session is.
async fn wait_offset(client: &RegistryClient, upload: &Upload, offset: usize) -> Result<()> {
    let wanted = format!("0-{}", offset - 1);
    wait_until("somebody goes on with the session", DEADLINE, || async {
        let answer = ask(client, upload).await?.expect(204)?;
        ensure!(answer.need_header("range")? == wanted, "{}", answer.describe());
        Ok(())
    })
    .await
}

async fn wait_no_uploads(cluster: &Cluster, indexes: &[usize]) -> Result<()> {
    wait_until("no upload is left on any disk", DEADLINE, || async {
        for index in indexes {
            let left = cluster.files(*index, "uploads")?.paths;
            ensure!(left.is_empty(), "replica {index} has {left:?}");
        }
        Ok(())
    })
    .await
}

/// A replica that does not lead, and the two others.
async fn a_follower(cluster: &Cluster) -> Result<(usize, usize, usize)> {
    let leader = cluster.leader().await?;
    let follower = (leader + 1) % 3;
    Ok((follower, leader, 3 - leader - follower))
}

/// The owner freezes between two chunks.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_frozen_between_chunks_answers_for_the_session_no_more() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (owner, one, other) = a_follower(&cluster).await?;
    let (at_owner, at_one, at_other) =
        (cluster.client(owner)?, cluster.client(one)?, cluster.client(other)?);
    let blob = Blob::random(1, 1_000_000);
    let mut upload = at_owner.open_upload(REPOSITORY).await?;
    at_owner.append(&mut upload, blob.bytes.slice(..300_000)).await?;
    let before = upload.clone();

    cluster.pause(owner)?;
    wait_offset(&at_one, &upload, 300_000).await?;
    at_one.append(&mut upload, blob.bytes.slice(300_000..600_000)).await?;
    cluster.resume(owner)?;

    // Whatever it is asked first, it must not go on from where it froze.
    let answer = at_owner.patch(&before, 300_000, Bytes::from(vec![7; 50_000])).await?;
    ensure!(answer.status != 202, "it took bytes at its old end: {}", answer.describe());
    println!("the old owner answered {}", answer.describe());
    for _ in 0..20 {
        let answer = ask(&at_owner, &upload).await?;
        let range = answer.header("range").unwrap_or("none").to_owned();
        ensure!(answer.status != 204 || range == "0-599999", "{}", answer.describe());
    }
    wait_offset(&at_owner, &upload, 600_000).await?;
    wait_offset(&at_other, &upload, 600_000).await?;
    // It passes on what comes to it.
    at_owner.append(&mut upload, blob.bytes.slice(600_000..900_000)).await?;
    let answer = at_other.finish(&upload, &blob.digest, blob.bytes.slice(900_000..)).await?;
    answer.expect(201)?;
    for client in [&at_owner, &at_one, &at_other] {
        let pulled = client.pull_blob(REPOSITORY, &blob.digest).await?;
        ensure!(pulled == blob.bytes);
    }
    wait_no_uploads(&cluster, &[0, 1, 2]).await?;
    cluster.shut_down().await
}

/// The owner freezes in the middle of a body, whose rest it gets when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_frozen_in_a_body_acknowledges_none_of_it() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (owner, one, other) = a_follower(&cluster).await?;
    let (at_owner, at_one) = (cluster.client(owner)?, cluster.client(one)?);
    let blob = Blob::random(2, 900_000);
    let mut upload = at_owner.open_upload(REPOSITORY).await?;
    at_owner.append(&mut upload, blob.bytes.slice(..300_000)).await?;

    let (body, pieces) = mpsc::channel::<Result<Bytes, io::Error>>(1);
    let pieces =
        stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let request = at_owner
        .request(Method::PATCH, &upload.location)?
        .header("content-range", "300000-599999")
        .body(Body::wrap_stream(pieces));
    let sender = at_owner.clone();
    let sending = tokio::spawn(async move { sender.send(request).await });
    body.send(Ok(blob.bytes.slice(300_000..450_000))).await?;
    wait_until("the holders have the first half of the body", DEADLINE, || async {
        let answer = ask(&cluster.client(other)?, &upload).await?.expect(204)?;
        let range = answer.need_header("range")?;
        ensure!(range == "0-449999", "{range}");
        Ok(())
    })
    .await?;
    cluster.pause(owner)?;
    // Whoever goes on has what reached it.
    let mut reached = 0;
    wait_until("another goes on", DEADLINE, || async {
        ask(&at_one, &upload).await?.expect(204).map(drop)
    })
    .await?;
    if let Some((_, end)) = ask(&at_one, &upload).await?.need_header("range")?.split_once('-') {
        reached = end.parse::<u64>()? + 1;
    }
    ensure!((300_000..=450_000).contains(&reached), "{reached}");
    upload.offset = reached;
    let end = usize::try_from(reached)? + 200_000;
    at_one.append(&mut upload, blob.bytes.slice(usize::try_from(reached)?..end)).await?;
    cluster.resume(owner)?;
    // Wrong bytes, even.
    let _ = body.send(Ok(Bytes::from(vec![9; 150_000]))).await;
    drop(body);
    match sending.await? {
        Ok(answer) => {
            ensure!(answer.status != 202, "the old owner acknowledged: {}", answer.describe());
            println!("the old owner answered {}", answer.describe());
        }
        Err(error) => println!("the old owner cut the connection: {error:#}"),
    }
    wait_offset(&at_owner, &upload, end).await?;
    let answer = at_owner.finish(&upload, &blob.digest, blob.bytes.slice(end..)).await?;
    answer.expect(201)?;
    for index in 0..3 {
        let pulled = cluster.client(index)?.pull_blob(REPOSITORY, &blob.digest).await?;
        ensure!(pulled == blob.bytes);
    }
    wait_no_uploads(&cluster, &[0, 1, 2]).await?;
    cluster.shut_down().await
}

/// Sessions of a replica that lives, of one that dies for good, and one that was taken over.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_sessions_give_their_space_back_on_every_replica() -> Result<()> {
    let options = ClusterOptions::default().setting("limits", "upload_idle_seconds", "6");
    let mut cluster = Cluster::start_with(options).await?;
    let (victim, one, other) = a_follower(&cluster).await?;
    let blob = Blob::random(3, 400_000);
    let mut uploads = Vec::new();
    for index in [victim, victim, one, other] {
        let client = cluster.client(index)?;
        let mut upload = client.open_upload(REPOSITORY).await?;
        client.append(&mut upload, blob.bytes.slice(..200_000)).await?;
        uploads.push(upload);
    }
    cluster.kill9(victim)?;
    // The first of the victim's is gone on with, and given up again.
    let client = cluster.client(one)?;
    wait_offset(&client, &uploads[0], 200_000).await?;
    client.append(&mut uploads[0], blob.bytes.slice(200_000..300_000)).await?;
    for index in [one, other] {
        ensure!(!cluster.files(index, "uploads")?.paths.is_empty(), "nothing to give back");
    }
    wait_no_uploads(&cluster, &[one, other]).await?;
    for upload in &uploads {
        for index in [one, other] {
            ask(&cluster.client(index)?, upload).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
        }
    }
    // What the dead one has on its disk goes when it is back, without anybody's help.
    ensure!(!cluster.files(victim, "uploads")?.paths.is_empty(), "its own sessions lie there");
    cluster.restart(victim)?;
    cluster.wait_ready(DEADLINE).await?;
    wait_no_uploads(&cluster, &[0, 1, 2]).await?;
    cluster.client(victim)?.push_blob(REPOSITORY, &blob).await?;
    cluster.shut_down().await
}
