//! Content that is meant to hurt whoever looks into it: Tercet does not look.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tercet_chaos::{Blob, Cluster, Image, MediaType, within};
use tokio::net::TcpListener;

use crate::{
    costs::{RESIDENT_MAX, one_replica},
    leftovers::{REPOSITORY, files, start, wait_nothing_left},
};

const BOMB_BYTES: usize = 10 * 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(20);

/// About ten megabytes of gzip that are more than a gigabyte of zeros: one zero, and then again and again "258
/// bytes as one byte before" in the fixed code of RFC 1951, section 3.2.6. The code of one repetition has 13
/// bits, so that 13 bytes hold eight.
fn gzip_bomb() -> Blob {
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits::default();
    bits.push(&[1, 1, 0]); // The last block, with the fixed code.
    bits.push(&[0, 0, 1, 1, 0, 0, 0, 0]); // The literal 0.
    for _ in 0..BOMB_BYTES * 8 / 13 {
        bits.push(&[1, 1, 0, 0, 0, 1, 0, 1]); // Length 258,
        bits.push(&[0, 0, 0, 0, 0]); // distance 1.
    }
    bits.push(&[0; 7]); // The end of the block.
    Blob::new([&HEAD[..], &bits.bytes, &[0; 8]].concat())
}

/// Bits from the lowest of each byte on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, bits: &[u8]) {
        for bit in bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= bit << (self.used % 8);
            self.used += 1;
        }
    }
}

/// CVE-2017-14992: a layer is bytes, whatever they could become.
#[tokio::test(flavor = "multi_thread")]
async fn a_compression_bomb_is_stored_as_it_is() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.client(0)?;
    let (bomb, config) = (gzip_bomb(), Blob::random(1, 100));
    client.push_blob_chunked(REPOSITORY, &bomb, 1 << 20).await?;
    client.push_blob(REPOSITORY, &config).await?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
        "config": config.descriptor(MediaType::CONFIG),
        "layers": [bomb.descriptor(MediaType::LAYER)],
    });
    let bytes = manifest.to_string().into();
    client.put_manifest(REPOSITORY, "bomb", MediaType::MANIFEST, bytes).await?.expect(201)?;
    for index in 0..cluster.len() {
        let other = cluster.client(index)?;
        other.pull_blob(REPOSITORY, &bomb.digest).await?;
        // Nor does anybody decode it for a client that would take it decoded.
        let path = format!("/v2/{REPOSITORY}/blobs/{}", bomb.digest);
        let request = other.request(Method::GET, &path)?.header("accept-encoding", "identity");
        let answer = other.send(request).await?.expect(200)?;
        ensure!(answer.header("content-encoding").is_none(), "{:?}", answer.headers);
        ensure!(answer.body == bomb.bytes, "other bytes");
        cluster.wait_held(index, &bomb.digest, DEADLINE).await?;
        let peak = cluster.memory(index)?.peak;
        ensure!(peak < RESIDENT_MAX, "replica {index}: {} MiB were resident", peak >> 20);
    }
    cluster.shut_down().await
}

/// A body that has to be decoded has another digest than its content, and another size.
#[tokio::test(flavor = "multi_thread")]
async fn encoded_bodies_are_refused() -> Result<()> {
    let (cluster, client) = start().await?;
    let before = files(&cluster)?;
    let bomb = gzip_bomb();
    let upload = client.open_upload(REPOSITORY).await?;
    let manifest = format!("/v2/{REPOSITORY}/manifests/encoded");
    let at_once = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", bomb.digest);
    for encoding in ["gzip", "zstd", "GZIP", "x-gzip", "br", "gzip, gzip", "identity, gzip", "junk"]
    {
        for (method, path) in [
            (Method::PATCH, upload.location.clone()),
            (Method::PUT, upload.with_digest(&bomb.digest)),
            (Method::POST, at_once.clone()),
            (Method::PUT, manifest.clone()),
        ] {
            let request = client
                .request(method.clone(), &path)?
                .header("content-encoding", encoding)
                .header("content-type", MediaType::MANIFEST)
                .body(bomb.bytes.slice(..10_000));
            let answer = client.send(request).await?;
            ensure!(answer.status == 415, "{method} {path} {encoding}: {}", answer.describe());
        }
    }
    client.delete(&upload.location).await?.expect(204)?;
    wait_nothing_left(&cluster, &before, "refused bodies").await?;
    cluster.shut_down().await
}

/// CVE-2020-15157: where a layer claims to be is no business of the registry.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_manifests_are_never_asked() -> Result<()> {
    let cluster = Cluster::start_with(one_replica()).await?;
    let client = cluster.client(0)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let other: SocketAddr = listener.local_addr()?;
    let (config, absent) = (Blob::random(1, 100), Blob::random(2, 5_000));
    client.push_blob(REPOSITORY, &config).await?;
    let urls =
        [format!("http://{other}/layer"), format!("https://{other}/layer"), format!("//{other}")];
    let foreign = [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        MediaType::LAYER,
    ];
    for (number, media_type) in foreign.into_iter().enumerate() {
        let mut layer = absent.descriptor(media_type);
        layer["urls"] = json!(urls);
        layer["annotations"] = json!({ "org.opencontainers.image.source": urls[0] });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
            "config": config.descriptor(MediaType::CONFIG), "layers": [layer],
            "annotations": { "org.opencontainers.image.url": urls[0] },
        });
        let bytes: Bytes = manifest.to_string().into();
        let tag = format!("foreign-{number}");
        let answer =
            client.put_manifest(REPOSITORY, &tag, MediaType::MANIFEST, bytes.clone()).await?;
        answer.expect(201)?;
        let pulled = client.get_manifest(REPOSITORY, &tag).await?.expect(200)?;
        ensure!(pulled.body == bytes, "another manifest");
        let answer = client.get(&format!("/v2/{REPOSITORY}/blobs/{}", absent.digest)).await?;
        answer.expect_error(404, "BLOB_UNKNOWN")?;
    }
    // The same for a mount from a place that is an address.
    let from = format!("http%3A%2F%2F{other}%2Fa");
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?mount={}&from={from}", absent.digest);
    client.call(Method::POST, &path).await?.expect(400)?;
    let nobody = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    ensure!(nobody.is_err(), "somebody connected: {nobody:?}");
    cluster.shut_down().await
}

/// `data` repeats a blob inside its descriptor: it is stored with the manifest and never unpacked.
#[tokio::test(flavor = "multi_thread")]
async fn embedded_data_is_not_decoded() -> Result<()> {
    let cluster = Cluster::start_with(one_replica()).await?;
    let client = cluster.client(0)?;
    let image = Image::random(3, &[100]);
    for blob in &image.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    for data in ["e30=".to_owned(), "%%%".to_owned(), "A".repeat(3 << 20)] {
        let mut config = image.blobs[0].descriptor(MediaType::CONFIG);
        config["data"] = json!(data);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
            "config": config, "layers": [image.blobs[1].descriptor(MediaType::LAYER)],
        });
        let bytes: Bytes = manifest.to_string().into();
        let push = client.put_manifest(REPOSITORY, "data", MediaType::MANIFEST, bytes.clone());
        within("a manifest with data", DEADLINE, push).await?.expect(201)?;
        let pulled = client.get_manifest(REPOSITORY, "data").await?.expect(200)?;
        ensure!(pulled.body == bytes, "another manifest");
        // The blob is the one that was pushed, not the one that the manifest claims.
        let blob = client.pull_blob(REPOSITORY, &image.blobs[0].digest).await?;
        ensure!(blob == image.blobs[0].bytes, "another config");
    }
    let peak = cluster.memory(0)?.peak;
    ensure!(peak < RESIDENT_MAX, "{} MiB were resident", peak >> 20);
    cluster.shut_down().await
}
