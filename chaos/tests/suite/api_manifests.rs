//! Manifests of the distribution specification, asked of replicas in turn.

use anyhow::{Result, ensure};
use bytes::Bytes;
use reqwest::{Method, header::ACCEPT};
use serde_json::json;
use tercet_chaos::{Blob, Cluster, Image, MediaType, image_index, sha512};

const REPOSITORY: &str = "library/surface";

#[tokio::test(flavor = "multi_thread")]
async fn manifests_by_tag_and_digest_in_all_types() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let (one, two) = (Image::random(1, &[1_000]), Image::random(2, &[1_000]));
    client.push_image(REPOSITORY, "one", &one).await?;
    client.push_image(REPOSITORY, &two.manifest.digest, &two).await?;
    let index = image_index(&[("amd64", &one), ("arm64", &two)]);
    client.push_manifest(REPOSITORY, "both", &index).await?;

    // Docker's own types, as older clients push them.
    let docker = json!({
        "schemaVersion": 2, "mediaType": MediaType::DOCKER_MANIFEST,
        "config": one.blobs[0].descriptor("application/vnd.docker.container.image.v1+json"),
        "layers": [one.blobs[1].descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip")],
    });
    let docker = Image::of_json(&docker, MediaType::DOCKER_MANIFEST, one.blobs.clone());
    client.push_manifest(REPOSITORY, "docker", &docker).await?;
    let list = json!({
        "schemaVersion": 2, "mediaType": MediaType::DOCKER_LIST, "manifests": [docker.descriptor()],
    });
    let list = Image::of_json(&list, MediaType::DOCKER_LIST, Vec::new());
    client.push_manifest(REPOSITORY, "docker-list", &list).await?;

    for (tag, image) in
        [("one", &one), ("both", &index), ("docker", &docker), ("docker-list", &list)]
    {
        for reference in [tag, &image.manifest.digest] {
            for _ in 0..3 {
                let answer = client.pull_manifest(REPOSITORY, reference).await?;
                ensure!(answer.body == image.manifest.bytes, "{reference} has other bytes");
                ensure!(answer.need_header("content-type")? == image.media_type);
                ensure!(answer.need_header("docker-content-digest")? == image.manifest.digest);
            }
            let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
            let answer = client.head(&path).await?.expect(200)?;
            let length = image.manifest.bytes.len().to_string();
            ensure!(answer.need_header("content-length")? == length, "{}", answer.describe());
            ensure!(answer.need_header("docker-content-digest")? == image.manifest.digest);
        }
    }
    let answer = client.get_manifest(REPOSITORY, "absent").await?;
    answer.expect_error(404, "MANIFEST_UNKNOWN")?;

    // A tag moves, everywhere at once.
    client.push_manifest(REPOSITORY, "one", &two).await?;
    for _ in 0..3 {
        let answer = client.pull_manifest(REPOSITORY, "one").await?;
        ensure!(answer.need_header("docker-content-digest")? == two.manifest.digest);
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sha512_digests() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let with_512 = |bytes: Bytes| Blob { digest: sha512(&bytes), bytes };
    let layer = with_512(Blob::random(1, 40_000).bytes);
    let config = with_512(Bytes::from_static(b"{}"));
    client.push_blob(REPOSITORY, &layer).await?;
    client.push_blob_at_once(REPOSITORY, &config).await?;
    let chunked = with_512(Blob::random(2, 40_000).bytes);
    client.push_blob_chunked(REPOSITORY, &chunked, 9_000).await?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "config": config.descriptor(MediaType::CONFIG), "layers": [layer.descriptor(MediaType::LAYER)],
    });
    let manifest = with_512(Bytes::from(manifest.to_string()));
    let bytes = manifest.bytes.clone();
    let answer =
        client.put_manifest(REPOSITORY, &manifest.digest, MediaType::MANIFEST, bytes).await?;
    let answer = answer.expect(201)?;
    ensure!(answer.need_header("docker-content-digest")? == manifest.digest);
    for _ in 0..3 {
        client.pull_manifest(REPOSITORY, &manifest.digest).await?;
        for blob in [&layer, &config, &chunked] {
            let bytes = client.pull_blob(REPOSITORY, &blob.digest).await?;
            ensure!(bytes == blob.bytes, "other bytes");
        }
    }
    for index in 0..3 {
        let deadline = std::time::Duration::from_secs(30);
        cluster.wait_held(index, &layer.digest, deadline).await?;
    }
    let wrong = with_512(Blob::random(3, 10).bytes).digest;
    let upload = client.open_upload(REPOSITORY).await?;
    let answer = client.finish(&upload, &wrong, Bytes::from_static(b"other")).await?;
    answer.expect_error(400, "DIGEST_INVALID")?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_change_only_if_they_are_what_the_client_thinks() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let images: Vec<Image> = (0..3).map(|seed| Image::random(seed, &[100])).collect();
    for image in &images {
        client.push_image(REPOSITORY, &image.manifest.digest, image).await?;
    }
    let put = async |image: &Image, header: &str, value: &str| -> Result<u16> {
        let request = client
            .request(Method::PUT, &format!("/v2/{REPOSITORY}/manifests/guarded"))?
            .header("content-type", image.media_type.as_str())
            .header(header, value)
            .body(image.manifest.bytes.clone());
        Ok(client.send(request).await?.status)
    };
    let quoted = |image: &Image| format!("\"{}\"", image.manifest.digest);
    ensure!(put(&images[0], "if-match", &quoted(&images[0])).await? == 412, "no such tag yet");
    ensure!(put(&images[0], "if-none-match", "*").await? == 201, "the first");
    ensure!(put(&images[1], "if-none-match", "*").await? == 412, "it exists");
    ensure!(put(&images[1], "if-match", &quoted(&images[2])).await? == 412, "another one");
    let answer = client.pull_manifest(REPOSITORY, "guarded").await?;
    ensure!(answer.need_header("docker-content-digest")? == images[0].manifest.digest);
    ensure!(put(&images[1], "if-match", &quoted(&images[0])).await? == 201, "as thought");
    let answer = client.pull_manifest(REPOSITORY, "guarded").await?;
    ensure!(answer.need_header("docker-content-digest")? == images[1].manifest.digest);
    cluster.shut_down().await
}

/// One push by digest that sets several tags (the specification's "tag" parameter).
#[tokio::test(flavor = "multi_thread")]
async fn several_tags_in_one_push() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let image = Image::random(1, &[100]);
    for blob in &image.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    let digest = &image.manifest.digest;
    let reference = format!("{digest}?tag=v1&tag=v1.2&tag=latest");
    let bytes = image.manifest.bytes.clone();
    let answer = client.put_manifest(REPOSITORY, &reference, &image.media_type, bytes).await?;
    answer.expect(201)?;
    for tag in ["v1", "v1.2", "latest"] {
        let answer = client.pull_manifest(REPOSITORY, tag).await?;
        ensure!(answer.need_header("docker-content-digest")? == digest, "{tag}");
    }
    cluster.shut_down().await
}

/// Mirrors name the upstream registry in the query; a registry that is no mirror answers as without.
#[tokio::test(flavor = "multi_thread")]
async fn the_ns_parameter_does_no_harm() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let image = Image::random(1, &[100]);
    client.push_image(REPOSITORY, "v1", &image).await?;
    let path = format!("/v2/{REPOSITORY}/manifests/v1?ns=registry.example");
    let request = client.request(Method::GET, &path)?.header(ACCEPT, MediaType::ACCEPT_ALL);
    let answer = client.send(request).await?.expect(200)?;
    ensure!(answer.body == image.manifest.bytes, "other bytes");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_show_through_every_replica_at_once() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    for round in 0..10 {
        let image = Image::random(round, &[1_000]);
        client.push_image(REPOSITORY, "keep", &image).await?;
        client.push_manifest(REPOSITORY, "drop", &image).await?;
        client.delete(&format!("/v2/{REPOSITORY}/manifests/drop")).await?.expect(202)?;
        for index in 0..3 {
            let other = cluster.client(index)?;
            other.get_manifest(REPOSITORY, "drop").await?.expect_error(404, "MANIFEST_UNKNOWN")?;
            other.pull_image(REPOSITORY, "keep", &image).await?;
        }
        // In use: refused, and still there.
        let layer = &image.blobs[1].digest;
        let blob_path = format!("/v2/{REPOSITORY}/blobs/{layer}");
        client.delete(&blob_path).await?.expect_error(405, "DENIED")?;
        client.pull_blob(REPOSITORY, layer).await?;
        // The manifest takes its tags with it.
        let path = format!("/v2/{REPOSITORY}/manifests/{}", image.manifest.digest);
        client.delete(&path).await?.expect(202)?;
        for index in 0..3 {
            let other = cluster.client(index)?;
            for reference in ["keep", &image.manifest.digest] {
                let answer = other.get_manifest(REPOSITORY, reference).await?;
                answer.expect_error(404, "MANIFEST_UNKNOWN")?;
            }
            ensure!(other.tags(REPOSITORY).await?.is_empty(), "tags are left");
        }
        client.delete(&path).await?.expect(404)?;
        client.delete(&blob_path).await?.expect(202)?;
        for index in 0..3 {
            let answer = cluster.client(index)?.get(&blob_path).await?;
            answer.expect_error(404, "BLOB_UNKNOWN")?;
        }
        client.delete(&blob_path).await?.expect(404)?;
    }
    // Deleted here, kept there.
    let blob = Blob::random(77, 100);
    client.push_blob(REPOSITORY, &blob).await?;
    client.push_blob("library/kept", &blob).await?;
    client.delete(&format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)).await?.expect(202)?;
    for index in 0..3 {
        let other = cluster.client(index)?;
        other.get(&format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)).await?.expect(404)?;
        other.pull_blob("library/kept", &blob.digest).await?;
    }
    cluster.shut_down().await
}
