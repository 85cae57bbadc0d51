//! Manifests that are too large, lie or name what is not there.

use anyhow::{Result, ensure};
use bytes::Bytes;
use reqwest::{Body, Method};
use serde_json::json;
use tercet_chaos::{Image, MediaType};

use crate::leftovers::{REPOSITORY, files, start};

const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn manifests_too_large_or_with_missing_parts_are_refused() -> Result<()> {
    let (cluster, client) = start().await?;
    let before = files(&cluster)?;
    let put = |tag: &'static str, media_type: &'static str, bytes: Vec<u8>| {
        let client = client.clone();
        async move { client.put_manifest(REPOSITORY, tag, media_type, bytes.into()).await }
    };
    let gone = async |tag: &str| -> Result<()> {
        for index in 0..3 {
            let answer = cluster.client(index)?.get_manifest(REPOSITORY, tag).await?;
            answer.expect_error(404, "MANIFEST_UNKNOWN")?;
        }
        Ok(())
    };

    let mut large = Image::random(7, &[10]).manifest.bytes.to_vec();
    large.resize(MANIFEST_BYTES_MAX + 1, b' ');
    put("large", MediaType::MANIFEST, large.clone()).await?.expect(413)?.error_code()?;
    gone("large").await?;
    // Without a Content-Length the registry must notice by itself.
    let chunks = large.chunks(65_536).map(|chunk| anyhow::Ok(Bytes::copy_from_slice(chunk)));
    let chunks: Vec<Result<Bytes>> = chunks.collect();
    let path = format!("/v2/{REPOSITORY}/manifests/large");
    let request = client
        .request(Method::PUT, &path)?
        .header("content-type", MediaType::MANIFEST)
        .body(Body::wrap_stream(futures_util::stream::iter(chunks)));
    client.send(request).await?.expect(413)?;
    gone("large").await?;

    // Exactly 4 MiB is allowed; padding is legal JSON.
    let image = Image::random(8, &[10]);
    for blob in &image.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    let mut full = image.manifest.bytes.to_vec();
    full.resize(MANIFEST_BYTES_MAX, b' ');
    put("full", MediaType::MANIFEST, full.clone()).await?.expect(201)?;
    let answer = cluster.client(1)?.pull_manifest(REPOSITORY, "full").await?;
    ensure!(answer.body.len() == MANIFEST_BYTES_MAX, "{} bytes came back", answer.body.len());

    let missing = Image::random(9, &[100]);
    let bytes = missing.manifest.bytes.to_vec();
    let answer = put("missing", MediaType::MANIFEST, bytes).await?;
    answer.expect_error(404, "MANIFEST_BLOB_UNKNOWN")?;
    gone("missing").await?;
    // Present in the registry, but not in this repository: that is missing too.
    for blob in &missing.blobs {
        client.push_blob("library/elsewhere", blob).await?;
    }
    let bytes = missing.manifest.bytes.to_vec();
    let answer = put("missing", MediaType::MANIFEST, bytes).await?;
    answer.expect_error(404, "MANIFEST_BLOB_UNKNOWN")?;
    let index = json!({
        "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": [missing.descriptor()],
    });
    let answer = put("missing", MediaType::INDEX, index.to_string().into_bytes()).await?;
    answer.expect_error(404, "MANIFEST_BLOB_UNKNOWN")?;
    gone("missing").await?;
    ensure!(files(&cluster)?.len() == before.len(), "folders");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_manifests_are_refused() -> Result<()> {
    let (cluster, client) = start().await?;
    let good = Image::random(10, &[100]);
    for blob in &good.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    let config = good.blobs[0].descriptor(MediaType::CONFIG);
    let layer = good.blobs[1].descriptor(MediaType::LAYER);
    let text = String::from_utf8_lossy(&good.manifest.bytes).into_owned();
    let size = format!("\"size\":{}", good.blobs[1].bytes.len());
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no JSON", b"not json".to_vec()),
        ("invalid UTF-8", vec![0xff, 0xfe, b'{', b'}']),
        ("deep nesting", nested.into_bytes()),
        ("a list", b"[]".to_vec()),
        ("schema 1", json!({ "schemaVersion": 1, "name": "x", "tag": "y" }).to_string().into()),
        ("negative size", text.replace(&size, "\"size\":-1").into()),
        ("huge number", text.replace(&size, "\"size\":1e400").into()),
        ("wrong size type", text.replace(&size, "\"size\":\"12\"").into()),
        ("duplicate keys", text.replacen('{', "{\"schemaVersion\":2,", 1).into()),
        (
            "layers and manifests",
            json!({
                "schemaVersion": 2, "mediaType": MediaType::MANIFEST, "config": config,
                "layers": [layer], "manifests": [good.descriptor()],
            })
            .to_string()
            .into(),
        ),
        ("another media type inside", text.replace(MediaType::MANIFEST, MediaType::INDEX).into()),
        ("bad digest inside", text.replace("sha256:", "sha256:../").into()),
    ];
    for (what, bytes) in cases {
        let answer =
            client.put_manifest(REPOSITORY, "bad", MediaType::MANIFEST, bytes.into()).await?;
        ensure!(answer.status == 400, "{what}: wanted 400, got {}", answer.describe());
        let code = answer.error_code()?;
        let fits = ["MANIFEST_INVALID", "DIGEST_INVALID", "SIZE_INVALID"].contains(&code.as_str());
        ensure!(fits, "{what}: {}", answer.describe());
    }
    let many: Vec<_> = std::iter::repeat_n(&layer, 20_000).collect();
    let many = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST, "config": config, "layers": many,
    });
    let bytes = many.to_string().into();
    let answer = client.put_manifest(REPOSITORY, "bad", MediaType::MANIFEST, bytes).await?;
    ensure!(matches!(answer.status, 400 | 413), "20000 layers: {}", answer.describe());
    let answer = client.get_manifest(REPOSITORY, "bad").await?;
    answer.expect_error(404, "MANIFEST_UNKNOWN")?;
    cluster.shut_down().await
}
