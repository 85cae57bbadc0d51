//! Fills a registry with many tags, as its clients would.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::json;

use crate::{
    client::RegistryClient,
    content::{Blob, MediaType},
};

/// Tags of each repository.
pub(super) const TAGS_EACH: usize = 100;
/// Repositories that are filled at the same time.
const AT_ONCE: usize = 64;
/// Tags of one push: the most that the registry takes.
const TAGS_OF_A_PUSH: usize = 64;
/// Where the only blob comes from.
const FIRST: &str = "bench/first";

/// The name of a repository; names sort as their numbers do.
pub(super) fn repository(number: usize) -> String {
    format!("bench/app-{number:06}")
}

/// The name of a tag.
pub(super) fn tag(number: usize) -> String {
    format!("1.{number:03}.0")
}

/// Makes the repositories of these numbers, each with [`TAGS_EACH`] tags of a manifest of its own: its config is mounted, so
/// that no blob is pushed more than once. Clients go to all replicas in turn.
pub(super) async fn fill(
    clients: &[RegistryClient],
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let first = clients.first().context("a registry has a replica")?;
    let config = Blob::new(json!({ "architecture": "amd64", "os": "linux" }).to_string());
    if first.get(&format!("/v2/{FIRST}/blobs/{}", config.digest)).await?.status != 200 {
        first.push_blob(FIRST, &config).await?;
    }
    stream::iter(numbers)
        .map(|number| {
            let client = clients.get(number % clients.len().max(1)).unwrap_or(first);
            one_repository(client, number, &config)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// The name of one of many tags; names sort as their numbers do.
pub(super) fn numbered_tag(number: usize) -> String {
    format!("1.{number:07}.0")
}

/// Sets the tags of these numbers in a repository, all of them of one manifest. Clients go to all replicas in turn.
pub(super) async fn fill_one(
    clients: &[RegistryClient],
    repository: &str,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let first = clients.first().context("a registry has a replica")?;
    let config = Blob::new(json!({ "architecture": "amd64", "os": "linux" }).to_string());
    first.push_blob(repository, &config).await?;
    let manifest = manifest(repository, &config);
    let starts = numbers.clone().step_by(TAGS_OF_A_PUSH);
    stream::iter(starts.enumerate())
        .map(|(turn, start)| {
            let client = clients.get(turn % clients.len().max(1)).unwrap_or(first);
            let tags = (start..numbers.end.min(start + TAGS_OF_A_PUSH)).map(numbered_tag);
            put_tags(client, repository, &manifest, tags.collect())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// An image without layers.
fn manifest(title: &str, config: &Blob) -> Blob {
    Blob::new(
        json!({
            "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
            "config": config.descriptor(MediaType::CONFIG), "layers": [],
            "annotations": { "org.opencontainers.image.title": title },
        })
        .to_string(),
    )
}

/// Pushes a manifest with tags.
async fn put_tags(
    client: &RegistryClient,
    repository: &str,
    manifest: &Blob,
    tags: Vec<String>,
) -> Result<()> {
    let tags: Vec<String> = tags.into_iter().map(|tag| format!("tag={tag}")).collect();
    let reference = format!("{}?{}", manifest.digest, tags.join("&"));
    let bytes = manifest.bytes.clone();
    client.put_manifest(repository, &reference, MediaType::MANIFEST, bytes).await?.expect(201)?;
    Ok(())
}

async fn one_repository(client: &RegistryClient, number: usize, config: &Blob) -> Result<()> {
    let name = repository(number);
    let path = format!("/v2/{name}/blobs/uploads/?mount={}&from={FIRST}", config.digest);
    let mounted = client.call(Method::POST, &path).await?;
    ensure!(mounted.status == 201, "mount into {name}: {}", mounted.describe());
    let manifest = manifest(&name, config);
    for start in (0..TAGS_EACH).step_by(TAGS_OF_A_PUSH) {
        let tags = (start..TAGS_EACH.min(start + TAGS_OF_A_PUSH)).map(tag);
        put_tags(client, &name, &manifest, tags.collect()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_their_numbers() {
        assert!(repository(9) < repository(10) && repository(9_999) < repository(100_000));
        assert!(tag(9) < tag(10) && tag(99) < tag(100));
        assert!(numbered_tag(9) < numbered_tag(10));
    }
}
