//! What is deleted in one repository is gone there, through every replica, at once.

use anyhow::{Context, Result};
use tercet_chaos::{Answer, Cluster, Image, RegistryClient};

const EMPTIED: &str = "team/emptied";
const KEPT: &str = "team/kept";

/// Asks for content by every way there is.
async fn ask(client: &RegistryClient, path: &str, digest: &str) -> Result<Vec<(String, Answer)>> {
    let known = format!("\"{digest}\"");
    let conditional = client.request(reqwest::Method::GET, path)?.header("if-none-match", known);
    let ranged = client.request(reqwest::Method::GET, path)?.header("range", "bytes=0-0,5-5");
    Ok(vec![
        ("GET".to_owned(), client.get(path).await?),
        ("HEAD".to_owned(), client.head(path).await?),
        ("GET with If-None-Match".to_owned(), client.send(conditional).await?),
        ("GET with Range".to_owned(), client.send(ranged).await?),
    ])
}

/// CVE-2026-35172: another registry answered for a deleted blob out of a cache that did not know of the
/// deletion, as long as some repository still had it.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_35172_deleted_content_is_gone_through_every_replica() -> Result<()> {
    let cluster = Cluster::start().await?;
    for round in 0..3 {
        let image = Image::random(35_172 + round as u64, &[20_000, 300]);
        for repository in [EMPTIED, KEPT] {
            cluster.client(round)?.push_image(repository, "v1", &image).await?;
        }
        // Every replica has served it, so each could remember it.
        for replica in 0..cluster.len() {
            cluster.client(replica)?.pull_image(EMPTIED, "v1", &image).await?;
        }
        let deleter = cluster.client((round + 1) % 3)?;
        let manifest = format!("/v2/{EMPTIED}/manifests/{}", image.manifest.digest);
        let mut gone = vec![(manifest, image.manifest.digest.clone())];
        for blob in &image.blobs {
            gone.push((format!("/v2/{EMPTIED}/blobs/{}", blob.digest), blob.digest.clone()));
        }
        for (path, digest) in &gone {
            deleter.delete(path).await?.expect(202)?;
            for replica in 0..cluster.len() {
                for (way, answer) in ask(&cluster.client(replica)?, path, digest).await? {
                    answer.expect(404).with_context(|| format!("{way} through {replica}"))?;
                }
            }
        }
        for replica in 0..cluster.len() {
            let client = cluster.client(replica)?;
            client.get(&format!("/v2/{EMPTIED}/manifests/v1")).await?.expect(404)?;
            client.pull_image(KEPT, "v1", &image).await.context("kept in the other repository")?;
        }
    }
    cluster.shut_down().await
}
