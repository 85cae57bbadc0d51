//! Uploads, blobs, ranges and mounts of the distribution specification, asked of replicas in turn.

use anyhow::{Result, ensure};
use reqwest::Method;
use tercet_chaos::{Blob, Cluster};

const REPOSITORY: &str = "library/surface";

#[tokio::test(flavor = "multi_thread")]
async fn base_and_unknown_things() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    for _ in 0..3 {
        let answer = client.get("/v2/").await?.expect(200)?;
        ensure!(answer.header("docker-distribution-api-version") == Some("registry/2.0"));
    }
    let digest = Blob::random(1, 1).digest;
    let unknown = "/v2/library/unknown";
    client.get(&format!("{unknown}/tags/list")).await?.expect_error(404, "NAME_UNKNOWN")?;
    let answer = client.get(&format!("{unknown}/manifests/latest")).await?.expect(404)?;
    let code = answer.error_code()?;
    ensure!(["MANIFEST_UNKNOWN", "NAME_UNKNOWN"].contains(&code.as_str()), "{code}");
    let answer = client.get(&format!("{unknown}/blobs/{digest}")).await?.expect(404)?;
    let code = answer.error_code()?;
    ensure!(["BLOB_UNKNOWN", "NAME_UNKNOWN"].contains(&code.as_str()), "{code}");
    let answer = client.head(&format!("{unknown}/blobs/{digest}")).await?.expect(404)?;
    ensure!(answer.body.is_empty(), "HEAD with a body");
    let session = format!("{unknown}/blobs/uploads/0123456789abcdef-{}", "0".repeat(32));
    client.get(&session).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    client.call(Method::PATCH, &session).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    client.get("/v2/no-such-page").await?.expect(404)?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_in_all_their_forms() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let blob = |seed| Blob::random(seed, 50_000);
    client.push_blob(REPOSITORY, &blob(1)).await?;
    client.push_blob_at_once(REPOSITORY, &blob(2)).await?;
    client.push_blob_chunked(REPOSITORY, &blob(3), 7_000).await?;
    client.push_blob_at_once(REPOSITORY, &Blob::new("")).await?;

    // A stream without Content-Range in one PATCH, then its state, then the rest with the PUT.
    let four = blob(4);
    let mut upload = client.open_upload(REPOSITORY).await?;
    let path = upload.location.clone();
    let request = client.request(Method::PATCH, &path)?.body(four.bytes.slice(..20_000));
    let answer = client.send(request).await?.expect(202)?;
    upload.follow(&answer)?;
    let status = client.get(&upload.location).await?.expect(204)?;
    ensure!(status.header("range") == Some("0-19999"), "{}", status.describe());
    status.need_header("location")?;
    let rest = four.bytes.slice(20_000..);
    let answer = client.finish(&upload, &four.digest, rest).await?.expect(201)?;
    let place = answer.need_header("location")?.to_owned();
    let answer = client.get(&place).await?.expect(200)?;
    ensure!(answer.body == four.bytes, "the Location of a blob leads to other bytes");
    // A finished session is gone.
    client.get(&upload.location).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    // The same blob again is fine.
    client.push_blob(REPOSITORY, &four).await?;

    let upload = client.open_upload(REPOSITORY).await?;
    client.delete(&upload.location).await?.expect(204)?;
    client.get(&upload.location).await?.expect_error(404, "BLOB_UPLOAD_UNKNOWN")?;
    for seed in 1..=4 {
        client.pull_blob(REPOSITORY, &blob(seed).digest).await?;
    }
    client.pull_blob(REPOSITORY, &Blob::new("").digest).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_ranges_and_visibility() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let blob = Blob::random(1, 100_000);
    client.push_blob(REPOSITORY, &blob).await?;
    let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
    for _ in 0..3 {
        let answer = client.head(&path).await?.expect(200)?;
        ensure!(answer.header("content-length") == Some("100000"), "{}", answer.describe());
        ensure!(answer.need_header("docker-content-digest")? == blob.digest);
        let answer = client.get(&path).await?.expect(200)?;
        ensure!(answer.body == blob.bytes, "other bytes");
        for (range, from, to) in [
            ("bytes=0-0", 0, 1),
            ("bytes=10-19", 10, 20),
            ("bytes=99990-", 99_990, 100_000),
            ("bytes=-5", 99_995, 100_000),
            ("bytes=99999-200000", 99_999, 100_000),
        ] {
            let answer = client.get_range(REPOSITORY, &blob.digest, range).await?.expect(206)?;
            ensure!(answer.body == blob.bytes.slice(from..to), "{range}: {}", answer.describe());
            let wanted = format!("bytes {from}-{}/100000", to - 1);
            ensure!(answer.need_header("content-range")? == wanted, "{}", answer.describe());
        }
        let answer =
            client.get_range(REPOSITORY, &blob.digest, "bytes=100000-").await?.expect(416)?;
        ensure!(answer.header("content-range") == Some("bytes */100000"), "{}", answer.describe());
    }
    // A blob is visible where it was pushed or mounted, and nowhere else.
    let elsewhere = format!("/v2/library/elsewhere/blobs/{}", blob.digest);
    client.push_blob("library/elsewhere", &Blob::random(2, 10)).await?;
    client.get(&elsewhere).await?.expect_error(404, "BLOB_UNKNOWN")?;
    client.head(&elsewhere).await?.expect(404)?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_from_another_repository() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let blob = Blob::random(1, 30_000);
    client.push_blob("library/source", &blob).await?;
    let mount = |from: &str, digest: &str| {
        format!("/v2/library/target/blobs/uploads/?mount={digest}&from={from}")
    };
    let path = mount("library/source", &blob.digest);
    let answer = client.call(Method::POST, &path).await?.expect(201)?;
    answer.need_header("location")?;
    for _ in 0..3 {
        client.pull_blob("library/target", &blob.digest).await?;
    }
    // What cannot be mounted becomes an ordinary upload.
    let other = Blob::random(2, 10);
    client.push_blob("library/third", &other).await?;
    for path in [mount("library/source", &other.digest), mount("library/none", &blob.digest)] {
        let answer = client.call(Method::POST, &path).await?;
        if path.contains("library/none") && answer.status == 201 {
            // Known in the target already.
            continue;
        }
        let answer = answer.expect(202)?;
        client.delete(answer.need_header("location")?).await?.expect(204)?;
    }
    client.get(&format!("/v2/library/target/blobs/{}", other.digest)).await?.expect(404)?;
    cluster.shut_down().await
}
