//! Manifests that are too large, lie or name what is not there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tercet_chaos::{Blob, Cluster, Image, MediaType, within};

use crate::{
    costs::{RESIDENT_MAX, one_replica},
    leftovers::{REPOSITORY, files, start},
};

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

/// Each of these is answered within seconds, and none of them makes a replica grow.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_of_json_are_refused_in_bounded_time_and_memory() -> Result<()> {
    let cluster = Cluster::start_with(one_replica()).await?;
    let client = cluster.client(0)?;
    let good = Image::random(11, &[100]);
    client.push_image(REPOSITORY, "good", &good).await?;
    let text = String::from_utf8_lossy(&good.manifest.bytes).into_owned();
    // The good manifest with one more member in front.
    let with = |member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let layer = good.blobs[1].descriptor(MediaType::LAYER).to_string();
    let layers = |one: &str, count: usize| {
        let config = good.blobs[0].descriptor(MediaType::CONFIG);
        let all = vec![one; count].join(",");
        format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{all}]}}")
    };
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let equal = vec!["\"a\":\"\""; 100_000].join(",");
    let big = "x".repeat(3 << 20);
    let second_list = text.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
    let bombs: Vec<(&str, String, &[u16])> = vec![
        ("100000 layers in more than 4 MiB", layers(&layer, 100_000), &[413]),
        ("as many layers as fit", layers(&layer, 20_000), &[400]),
        ("100000 layers that say nothing", layers("{}", 100_000), &[400]),
        ("nested where a layer belongs", layers(&nested(10_000), 1), &[400]),
        ("nested in annotations", with(&format!("\"annotations\":{}", nested(10_000))), &[400]),
        // What Tercet does not know is not looked into.
        ("nested where nothing belongs", with(&format!("\"x\":{}", nested(10_000))), &[201, 400]),
        ("a type of 3 MiB", text.replacen(MediaType::MANIFEST, &big, 1), &[400]),
        ("a string for a number", with(&format!("\"schemaVersion\":\"{big}\"")), &[400]),
        ("digits", with(&format!("\"schemaVersion\":{}", "9".repeat(3 << 20))), &[400]),
        ("equal annotations", with(&format!("\"annotations\":{{{equal}}}")), &[201, 400]),
        ("one key spelled in two ways", with("\"media\\u0054ype\":\"a/b\""), &[400]),
        ("one list behind the other", second_list, &[400]),
        ("a byte order mark", format!("\u{feff}{text}"), &[400]),
        ("half a surrogate", with("\"artifactType\":\"\\ud800\""), &[400]),
        ("two documents", format!("{text}{text}"), &[400]),
    ];
    for (what, bytes, wanted) in bombs {
        let push = client.put_manifest(REPOSITORY, "bomb", MediaType::MANIFEST, bytes.into());
        let answer = within(what, Duration::from_secs(10), push).await?;
        println!("{what}: {}", answer.status);
        let expected = wanted.contains(&answer.status);
        ensure!(expected, "{what}: wanted {wanted:?}, got {}", answer.describe());
        if answer.status != 201 {
            ensure!(answer.body.len() < 4_096, "{what}: an error of {} bytes", answer.body.len());
            answer.error_code()?;
        }
        let peak = cluster.memory(0)?.peak;
        ensure!(peak < RESIDENT_MAX, "{what}: {} MiB were resident", peak >> 20);
    }
    cluster.shut_down().await
}

/// CVE-2021-41190: what a manifest is does not depend on who asks, nor on what it was called when it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_of_one_type_for_everybody() -> Result<()> {
    let cluster = Cluster::start_with(one_replica()).await?;
    let client = cluster.client(0)?;
    let image = Image::random(12, &[100]);
    client.push_image(REPOSITORY, "typed", &image).await?;
    let put = async |media_type: &str, bytes: Vec<u8>| {
        client.put_manifest(REPOSITORY, "confused", media_type, bytes.into()).await
    };
    let typed = image.manifest.bytes.to_vec();
    let index_types = [MediaType::INDEX, MediaType::DOCKER_LIST];
    for other in
        [MediaType::DOCKER_MANIFEST, MediaType::LAYER, "text/html"].iter().chain(&index_types)
    {
        put(other, typed.clone()).await?.expect(400)?.error_code()?;
    }
    // Without a type inside, its members decide: they fit one kind only.
    let mut untyped: Value = serde_json::from_slice(&typed)?;
    untyped.as_object_mut().context("a manifest is an object")?.remove("mediaType");
    let untyped = serde_json::to_vec(&untyped)?;
    for other in index_types {
        put(other, untyped.clone()).await?.expect(400)?.error_code()?;
    }
    client.get_manifest(REPOSITORY, "confused").await?.expect(404)?;
    put(MediaType::MANIFEST, untyped.clone()).await?.expect(201)?;
    let path = format!("/v2/{REPOSITORY}/manifests/confused");
    for accept in ["*/*", MediaType::INDEX, "text/html", "application/json;q=0"] {
        let request = client.request(Method::GET, &path)?.header("accept", accept);
        let answer = client.send(request).await?.expect(200)?;
        let found = answer.header("content-type");
        ensure!(found == Some(MediaType::MANIFEST), "Accept {accept}: {found:?}");
        ensure!(answer.body == untyped, "Accept {accept}: other bytes");
    }
    cluster.shut_down().await
}

/// A subject is a name, not an order to go and look: no chain of them is followed, and none can be a ring.
#[tokio::test(flavor = "multi_thread")]
async fn subjects_are_not_followed() -> Result<()> {
    let cluster = Cluster::start_with(one_replica()).await?;
    let client = cluster.client(0)?;
    let image = Image::random(13, &[100]);
    client.push_image(REPOSITORY, "chain", &image).await?;
    let mut text: Value = serde_json::from_slice(&image.manifest.bytes)?;
    let put = async |digest: &str, bytes: Bytes| {
        client.put_manifest(REPOSITORY, digest, MediaType::MANIFEST, bytes).await
    };
    let referrers = async |digest: &str| {
        let path = format!("/v2/{REPOSITORY}/referrers/{digest}");
        let list = client.get(&path).await?.expect(200)?.json()?;
        anyhow::Ok(list["manifests"].as_array().context("no list")?.len())
    };
    let mut subject = image.descriptor();
    let mut chain = vec![image.manifest.digest.clone()];
    for _ in 0..20 {
        text["subject"] = subject;
        let link = Blob::new(text.to_string());
        put(&link.digest, link.bytes.clone()).await?.expect(201)?;
        subject = link.descriptor(MediaType::MANIFEST);
        chain.push(link.digest);
    }
    for (number, digest) in chain.iter().enumerate() {
        let listed = referrers(digest).await?;
        ensure!(listed == usize::from(number + 1 < chain.len()), "{number} has {listed}");
    }
    // A manifest that names itself would have to hold its own hash; one that claims to is refused.
    let own = Blob::random(14, 1).digest;
    text["subject"] = json!({ "mediaType": MediaType::MANIFEST, "digest": own, "size": 1 });
    let answer = put(&own, text.to_string().into()).await?;
    answer.expect_error(400, "DIGEST_INVALID")?;
    ensure!(referrers(&own).await? == 0, "a refused manifest refers to something");
    cluster.shut_down().await
}
