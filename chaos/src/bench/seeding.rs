//! Fills a registry with many tags, as its clients would.

use std::fmt::Write as _;

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

async fn one_repository(client: &RegistryClient, number: usize, config: &Blob) -> Result<()> {
    let name = repository(number);
    let path = format!("/v2/{name}/blobs/uploads/?mount={}&from={FIRST}", config.digest);
    let mounted = client.call(Method::POST, &path).await?;
    ensure!(mounted.status == 201, "mount into {name}: {}", mounted.describe());
    let manifest = Blob::new(
        json!({
            "schemaVersion": 2, "mediaType": MediaType::MANIFEST,
            "config": config.descriptor(MediaType::CONFIG), "layers": [],
            "annotations": { "org.opencontainers.image.title": name },
        })
        .to_string(),
    );
    for start in (0..TAGS_EACH).step_by(TAGS_OF_A_PUSH) {
        let mut reference = format!("{}?", manifest.digest);
        for number in start..TAGS_EACH.min(start + TAGS_OF_A_PUSH) {
            write!(reference, "tag={}&", tag(number))?;
        }
        let reference = reference.trim_end_matches('&');
        let bytes = manifest.bytes.clone();
        let answer = client.put_manifest(&name, reference, MediaType::MANIFEST, bytes).await?;
        answer.expect(201)?;
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
    }
}
