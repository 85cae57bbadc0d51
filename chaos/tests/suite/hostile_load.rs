//! More uploads than a replica takes.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use tercet_chaos::{Blob, Cluster, ClusterOptions, Upload, wait_until};

use crate::leftovers::REPOSITORY;

const DEADLINE: Duration = Duration::from_secs(60);
const UPLOADS: usize = 2_000;
/// `limits.uploads_max`.
const UPLOADS_MAX: usize = 1_024;
/// Requests under way at a time.
const AT_ONCE: usize = 400;
/// What the replica that has them all open may have resident, in bytes: a small pod's memory.
const RESIDENT_MAX: u64 = 256 * 1024 * 1024;
/// Uploads of one and the same content, and as many of contents of their own.
const SAME: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_thousand_uploads_some_wait_and_the_same_content_is_one_blob() -> Result<()> {
    let cluster = Cluster::start_with(ClusterOptions::default().alone()).await?;
    let client = cluster.client(0)?;
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/");

    let answers: Vec<_> = stream::iter(0..UPLOADS)
        .map(|_| client.call(Method::POST, &path))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut open = Vec::new();
    for answer in answers {
        if answer.status == 202 {
            let location = answer.need_header("location")?.to_owned();
            open.push(Upload { location, offset: 0 });
            continue;
        }
        ensure!(matches!(answer.status, 429 | 503), "{}", answer.describe());
        let seconds: u64 = answer.need_header("retry-after")?.parse()?;
        ensure!((1..=60).contains(&seconds), "{}", answer.describe());
        ensure!(answer.error_code()? == "TOOMANYREQUESTS", "{}", answer.describe());
    }
    ensure!(open.len() == UPLOADS_MAX, "{} uploads are open", open.len());

    // All of them end at once: with one content, with one each, and cancelled.
    let same = Blob::random(1, 64 * 1024);
    let statuses: Vec<(u16, u16)> = stream::iter(open.into_iter().enumerate())
        .map(|(number, upload)| {
            let (client, same) = (&client, &same);
            async move {
                let own = Blob::random(number as u64, 4 * 1024);
                let (wanted, answer) = if number < SAME {
                    (201, client.finish(&upload, &same.digest, same.bytes.clone()).await?)
                } else if number < 2 * SAME {
                    (201, client.finish(&upload, &own.digest, own.bytes.clone()).await?)
                } else {
                    (204, client.delete(&upload.location).await?)
                };
                anyhow::Ok((wanted, answer.status))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    for (wanted, status) in statuses {
        ensure!(status == wanted, "wanted {wanted}, got {status}");
    }
    // What was refused comes in now.
    client.push_blob(REPOSITORY, &Blob::new(Bytes::from_static(b"later"))).await?;

    let blobs = SAME + 2;
    for index in 0..cluster.len() {
        wait_until("one file for each content, and no upload", DEADLINE, || async {
            let (now, left) = (cluster.files(index, "blobs")?, cluster.files(index, "uploads")?);
            ensure!(now.paths.len() == blobs, "replica {index}: {} blobs", now.paths.len());
            ensure!(left.paths.is_empty(), "replica {index}: {} uploads", left.paths.len());
            Ok(())
        })
        .await?;
        let peak = cluster.memory(index)?.peak;
        println!("replica {index}: at most {} MiB resident", peak >> 20);
        ensure!(peak < RESIDENT_MAX, "replica {index}: {} MiB were resident", peak >> 20);
    }
    for index in 0..cluster.len() {
        cluster.client(index)?.pull_blob(REPOSITORY, &same.digest).await?;
    }
    cluster.shut_down().await
}

/// An upload that nobody comes back to: its space is free again, on every replica.
#[tokio::test(flavor = "multi_thread")]
async fn abandoned_uploads_give_their_space_back() -> Result<()> {
    let options = ClusterOptions::default().setting("limits", "upload_idle_seconds", "2");
    let cluster = Cluster::start_with(options).await?;
    let client = cluster.client(0)?;
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, Blob::random(1, 500_000).bytes).await?;
    ensure!(!cluster.files(0, "uploads")?.paths.is_empty(), "the upload is nowhere");
    for index in 0..cluster.len() {
        wait_until("no upload is left", DEADLINE, || async {
            let left = cluster.files(index, "uploads")?.paths;
            ensure!(left.is_empty(), "replica {index}: {left:?}");
            Ok(())
        })
        .await?;
    }
    let answer = client.get(&upload.location).await?;
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    cluster.shut_down().await
}
