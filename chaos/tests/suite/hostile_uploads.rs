//! Lying and broken uploads: the right refusal, nothing published, nothing left.

use std::io;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Method};
use tercet_chaos::{
    Blob, Cluster, END_HEADERS, END_STREAM, FrameKind, Http2, Image, RegistryClient, Upload, frame,
    raw_exchange, raw_send_and_cut, request_block, wait_until,
};

use crate::leftovers::{DEADLINE, REPOSITORY, files, start, wait_nothing_left};

async fn check_unpublished(cluster: &Cluster, digest: &str) -> Result<()> {
    for index in 0..cluster.len() {
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let answer = cluster.client(index)?.get(&path).await?;
        answer.expect_error(404, "BLOB_UNKNOWN")?;
    }
    Ok(())
}

/// How far the session is, once the last request to it has ended.
async fn offset_of(client: &RegistryClient, upload: &Upload) -> Result<usize> {
    wait_until("the session is free again", DEADLINE, || async {
        let answer = client.get(&upload.location).await?.expect(204)?;
        let range = answer.need_header("range")?.to_owned();
        let last: usize = range.strip_prefix("0-").context("Range")?.parse()?;
        Ok(if last == 0 { 0 } else { last + 1 })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_digests_publish_nothing() -> Result<()> {
    let (cluster, client) = start().await?;
    let before = files(&cluster)?;
    let (sent, claimed) = (Blob::random(1, 70_000), Blob::random(2, 70_000));

    let upload = client.open_upload(REPOSITORY).await?;
    let answer = client.finish(&upload, &claimed.digest, sent.bytes.clone()).await?;
    answer.expect_error(400, "DIGEST_INVALID")?;

    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, sent.bytes.clone()).await?;
    let answer = client.finish(&upload, &claimed.digest, Bytes::new()).await?;
    answer.expect_error(400, "DIGEST_INVALID")?;

    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", claimed.digest);
    let request = client.request(Method::POST, &path)?.body(sent.bytes.clone());
    client.send(request).await?.expect_error(400, "DIGEST_INVALID")?;

    check_unpublished(&cluster, &claimed.digest).await?;
    check_unpublished(&cluster, &sent.digest).await?;
    wait_nothing_left(&cluster, &before, "wrong digests").await?;

    // A manifest under a digest that is not its own.
    let image = Image::random(3, &[500]);
    for blob in &image.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    let bytes = image.manifest.bytes.clone();
    let answer = client.put_manifest(REPOSITORY, &claimed.digest, &image.media_type, bytes).await?;
    answer.expect_error(400, "DIGEST_INVALID")?;
    let answer = client.get_manifest(REPOSITORY, &claimed.digest).await?;
    answer.expect_error(404, "MANIFEST_UNKNOWN")?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_lengths_and_chunk_order_are_refused_and_the_session_goes_on() -> Result<()> {
    let (cluster, client) = start().await?;
    let before = files(&cluster)?;
    let blob = Blob::random(4, 90_000);
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, blob.bytes.slice(..30_000)).await?;

    // Ahead, again, and overlapping: the answer says where to go on.
    for start in [60_000, 0, 15_000] {
        let chunk = blob.bytes.slice(start..start + 10_000);
        let answer = client.patch(&upload, start as u64, chunk).await?.expect(416)?;
        ensure!(answer.header("range") == Some("0-29999"), "{}", answer.describe());
    }
    // The range says 20000 bytes, the body has 10000.
    let request = client
        .request(Method::PATCH, &upload.location)?
        .header("content-range", "30000-49999")
        .body(blob.bytes.slice(30_000..40_000));
    let answer = client.send(request).await?;
    ensure!(matches!(answer.status, 400 | 416), "{}", answer.describe());
    if answer.status == 400 {
        answer.expect_error(400, "SIZE_INVALID")?;
    }
    for range in ["30000", "a-b", "30000-29999", "-5", "0-18446744073709551616", "bytes=0-9"] {
        let request = client
            .request(Method::PATCH, &upload.location)?
            .header("content-range", range)
            .body(Bytes::from_static(b"x"));
        let answer = client.send(request).await?;
        ensure!(matches!(answer.status, 400 | 416), "{range}: {}", answer.describe());
        answer.error_code()?;
    }
    // None of it has moved the session.
    let status = client.get(&upload.location).await?.expect(204)?;
    ensure!(status.header("range") == Some("0-29999"), "{}", status.describe());
    client.append(&mut upload, blob.bytes.slice(30_000..60_000)).await?;
    let last = blob.bytes.slice(60_000..);
    client.finish(&upload, &blob.digest, last).await?.expect(201)?;
    client.pull_blob(REPOSITORY, &blob.digest).await?;

    // Cancelled: nothing stays, and the session is unknown from then on.
    cluster.wait_held(0, &blob.digest, DEADLINE).await?;
    cluster.wait_held(1, &blob.digest, DEADLINE).await?;
    cluster.wait_held(2, &blob.digest, DEADLINE).await?;
    let before_cancel = files(&cluster)?;
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, blob.bytes.slice(..50_000)).await?;
    cluster.client(2)?.delete(&upload.location).await?.expect(204)?;
    let answer = client.get(&upload.location).await?;
    answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    wait_nothing_left(&cluster, &before_cancel, "a cancelled upload").await?;
    ensure!(before_cancel != before, "the good blob is on disk");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_bodies_publish_nothing() -> Result<()> {
    let (cluster, client) = start().await?;
    let before = files(&cluster)?;
    let base = cluster.registry_url(0);
    let blob = Blob::random(5, 60_000);
    let cut = |head: String| {
        let length = blob.bytes.len();
        let head = format!("{head}\r\nHost: registry\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &blob.bytes[..20_000]].concat()
    };

    // A single POST: its session has no name that the client knows, so nothing may stay.
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", blob.digest);
    raw_send_and_cut(&base, &cut(format!("POST {path} HTTP/1.1"))).await?;
    wait_nothing_left(&cluster, &before, "a cut POST").await?;

    // A closing PUT: the session stays for another try, or is gone; the blob is not there.
    let upload = client.open_upload(REPOSITORY).await?;
    let path = upload.with_digest(&blob.digest);
    raw_send_and_cut(&base, &cut(format!("PUT {path} HTTP/1.1"))).await?;
    check_unpublished(&cluster, &blob.digest).await?;
    let answer = client.delete(&upload.location).await?;
    ensure!(matches!(answer.status, 204 | 404), "{}", answer.describe());
    wait_nothing_left(&cluster, &before, "a cut PUT").await?;

    // A PATCH: the client learns how far it came and goes on from there.
    let upload = client.open_upload(REPOSITORY).await?;
    raw_send_and_cut(&base, &cut(format!("PATCH {} HTTP/1.1", upload.location))).await?;
    check_unpublished(&cluster, &blob.digest).await?;
    let offset = offset_of(&client, &upload).await?;
    ensure!(offset <= 20_000, "it claims {offset} bytes");
    let answer = client.patch(&upload, offset as u64, blob.bytes.slice(offset..)).await?;
    answer.expect(202)?;
    client.finish(&upload, &blob.digest, Bytes::new()).await?.expect(201)?;
    client.pull_blob(REPOSITORY, &blob.digest).await?;
    cluster.shut_down().await
}

/// A manifest whose body ends too early.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_manifest_publishes_nothing() -> Result<()> {
    let (cluster, client) = start().await?;
    let image = Image::random(6, &[500]);
    for blob in &image.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    let head = format!(
        "PUT /v2/{REPOSITORY}/manifests/cut HTTP/1.1\r\nHost: registry\r\nContent-Type: {}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        image.media_type,
        image.manifest.bytes.len()
    );
    let base = cluster.registry_url(1);
    let half = &image.manifest.bytes[..image.manifest.bytes.len() / 2];
    raw_send_and_cut(&base, &[head.as_bytes(), half].concat()).await?;
    for index in 0..3 {
        let answer = cluster.client(index)?.get_manifest(REPOSITORY, "cut").await?;
        answer.expect_error(404, "MANIFEST_UNKNOWN")?;
    }
    // Nothing but the cut was wrong with it.
    let whole = raw_exchange(&base, &[head.as_bytes(), &image.manifest.bytes].concat()).await?;
    ensure!(whole.status == Some(201), "{whole:?}");
    cluster.shut_down().await
}

/// A body that goes on after its announced end: by `Content-Range` in a body without a length, by
/// `Content-Length` in HTTP/1 and in HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_long_are_refused_and_the_session_goes_on() -> Result<()> {
    let (cluster, client) = start().await?;
    let blob = Blob::random(7, 1_000_000);
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, blob.bytes.slice(..30_000)).await?;
    // As a request line, which it must not become, it would be refused at once.
    let wrong = Bytes::from(vec![0; 600_000]);

    // In pieces, so that part of it is there before it is too long; and a closing PUT that would fit but for
    // its end.
    let announced = blob.bytes.slice(30_000..330_000);
    let pieces = [announced.slice(..100_000), announced.slice(100_000..), wrong.clone()];
    let body = || Body::wrap_stream(stream::iter(pieces.clone().map(Ok::<_, io::Error>)));
    let request = client
        .request(Method::PATCH, &upload.location)?
        .header("content-range", "30000-329999")
        .body(body());
    client.send(request).await?.expect_error(400, "SIZE_INVALID")?;
    // What was taken of the announced bytes counts, and not one more.
    let offset = offset_of(&client, &upload).await?;
    ensure!((30_000..=330_000).contains(&offset), "it claims {offset} bytes");
    let request = client
        .request(Method::PUT, &upload.with_digest(&blob.digest))?
        .header("content-range", format!("{offset}-{}", offset + 99_999))
        .body(body());
    client.send(request).await?.expect_error(400, "SIZE_INVALID")?;
    check_unpublished(&cluster, &blob.digest).await?;
    let answer = client.delete(&upload.location).await?;
    ensure!(matches!(answer.status, 204 | 404), "{}", answer.describe());

    // HTTP/1: what comes behind the announced end is not of this body, and no request either.
    let mut upload = client.open_upload(REPOSITORY).await?;
    client.append(&mut upload, blob.bytes.slice(..30_000)).await?;
    let head = format!(
        "PATCH {} HTTP/1.1\r\nHost: registry\r\nContent-Length: 10000\r\n\r\n",
        path_of(&upload)
    );
    let sent = [head.as_bytes(), &blob.bytes[30_000..40_000], &wrong[..2_000]].concat();
    let answer = raw_exchange(&cluster.registry_url(0), &sent).await?;
    ensure!(answer.status == Some(202), "{answer:?}");
    ensure!(offset_of(&client, &upload).await? == 40_000);

    // HTTP/2: the stream is malformed (RFC 9113, section 8.1.1).
    let block = request_block("PATCH", path_of(&upload), &[("content-length", "10000")]);
    let head = frame(FrameKind::Headers, END_HEADERS, 1, &block);
    let good = frame(FrameKind::Data, 0, 1, &blob.bytes[40_000..46_000]);
    let more = frame(FrameKind::Data, END_STREAM, 1, &wrong[..6_000]);
    let mut connection = Http2::connect(&cluster.registry_url(0)).await?;
    connection.send(&[head, good, more].concat()).await;
    let seen = wait_until("the stream is reset", DEADLINE, || async {
        let seen = connection.seen();
        ensure!(seen.resets > 0 || seen.goaway.is_some() || seen.closed, "{seen:?}");
        Ok(seen)
    })
    .await?;
    println!("HTTP/2: {seen:?}");
    check_unpublished(&cluster, &blob.digest).await?;
    let offset = offset_of(&client, &upload).await?;
    ensure!((40_000..=46_000).contains(&offset), "it claims {offset} bytes");

    // The digest of the whole says that nothing wrong is among it.
    let answer = client.patch(&upload, offset as u64, blob.bytes.slice(offset..)).await?;
    answer.expect(202)?;
    client.finish(&upload, &blob.digest, Bytes::new()).await?.expect(201)?;
    client.pull_blob(REPOSITORY, &blob.digest).await?;
    cluster.shut_down().await
}

/// A `Location` without scheme and host.
fn path_of(upload: &Upload) -> &str {
    let location = upload.location.as_str();
    location.find("/v2/").map_or(location, |start| &location[start..])
}
