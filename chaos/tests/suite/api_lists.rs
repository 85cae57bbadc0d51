//! Tags, catalog and referrers of the distribution specification, asked of replicas in turn.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tercet_chaos::{Answer, Blob, Cluster, Image, MediaType, RegistryClient, artifact_for};

const REPOSITORY: &str = "library/surface";

/// The path and query of a `Link` to the next page (RFC 5988).
fn next_page(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then(|| target.to_owned())
}

/// All pages of a list.
async fn all_pages(
    client: &RegistryClient,
    first: &str,
    field: &str,
) -> Result<(Vec<String>, usize)> {
    let (mut all, mut pages, mut next) = (Vec::new(), 0, Some(first.to_owned()));
    while let Some(path) = next {
        let answer = client.get(&path).await?.expect(200)?;
        let json = answer.json()?;
        let list = json.get(field).and_then(Value::as_array).context("no list")?;
        all.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
        pages += 1;
        ensure!(pages < 100, "the pages never end");
        next = next_page(&answer);
    }
    Ok((all, pages))
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let image = Image::random(1, &[100]);
    client.push_image(REPOSITORY, "t00", &image).await?;
    for number in 1..25 {
        client.push_manifest(REPOSITORY, &format!("t{number:02}"), &image).await?;
    }
    let wanted: Vec<String> = (0..25).map(|number| format!("t{number:02}")).collect();
    let path = format!("/v2/{REPOSITORY}/tags/list");
    ensure!(client.tags(REPOSITORY).await? == wanted, "without n");
    let (tags, pages) = all_pages(&client, &format!("{path}?n=10"), "tags").await?;
    ensure!(tags == wanted && pages == 3, "{pages} pages: {tags:?}");
    let answer = client.get(&format!("{path}?n=5&last=t03")).await?.expect(200)?;
    ensure!(answer.json()?["tags"] == json!(["t04", "t05", "t06", "t07", "t08"]));
    let answer = client.get(&format!("{path}?n=0")).await?.expect(200)?;
    ensure!(answer.json()?["tags"] == json!([]), "n=0: {}", answer.describe());
    let answer = client.get(&format!("{path}?last=t24")).await?.expect(200)?;
    ensure!(answer.json()?["tags"] == json!([]), "past the end: {}", answer.describe());

    for number in 0..12 {
        client.push_image(&format!("pages/{number:02}"), "v1", &image).await?;
    }
    let (names, _) = all_pages(&client, "/v2/_catalog?n=5", "repositories").await?;
    let mut wanted: Vec<String> = (0..12).map(|number| format!("pages/{number:02}")).collect();
    wanted.insert(0, REPOSITORY.to_owned());
    ensure!(names == wanted, "{names:?}");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_of_a_subject() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let image = Image::random(1, &[1_000]);
    // A subject may come after what refers to it.
    let signature = artifact_for(&image, "application/vnd.example.signature", Blob::random(2, 100));
    for blob in &signature.blobs {
        client.push_blob(REPOSITORY, blob).await?;
    }
    let bytes = signature.manifest.bytes.clone();
    let digest = &signature.manifest.digest;
    let answer = client.put_manifest(REPOSITORY, digest, MediaType::MANIFEST, bytes).await?;
    let answer = answer.expect(201)?;
    ensure!(answer.need_header("oci-subject")? == image.manifest.digest, "{}", answer.describe());
    client.push_image(REPOSITORY, "v1", &image).await?;
    let list = artifact_for(&image, "application/vnd.example.list", Blob::random(3, 100));
    client.push_image(REPOSITORY, &list.manifest.digest, &list).await?;

    let path = format!("/v2/{REPOSITORY}/referrers/{}", image.manifest.digest);
    for _ in 0..3 {
        let answer = client.get(&path).await?.expect(200)?;
        ensure!(answer.need_header("content-type")? == MediaType::INDEX, "{}", answer.describe());
        let index = answer.json()?;
        ensure!(index["schemaVersion"] == 2 && index["mediaType"] == MediaType::INDEX, "{index}");
        let found = client.referrers(REPOSITORY, &image.manifest.digest).await?;
        ensure!(found.len() == 2, "{found:?}");
        for referrer in [&signature, &list] {
            let one = found.iter().find(|one| one["digest"] == json!(referrer.manifest.digest));
            let one = one.with_context(|| format!("{} is missing", referrer.manifest.digest))?;
            ensure!(one["size"] == referrer.manifest.bytes.len(), "{one}");
            ensure!(one["mediaType"] == MediaType::MANIFEST, "{one}");
            ensure!(one["annotations"]["org.example.kind"] == one["artifactType"], "{one}");
        }
    }
    let filter = format!("{path}?artifactType=application/vnd.example.list");
    let answer = client.get(&filter).await?.expect(200)?;
    let found = answer.json()?["manifests"].as_array().cloned().unwrap_or_default();
    if answer.header("oci-filters-applied") == Some("artifactType") {
        ensure!(found.len() == 1, "{found:?}");
    }
    ensure!(found.iter().any(|one| one["digest"] == json!(list.manifest.digest)), "{found:?}");
    // Nothing refers to it: an empty list, not an error.
    let found = client.referrers(REPOSITORY, &list.manifest.digest).await?;
    ensure!(found.is_empty(), "{found:?}");
    // A deleted referrer is gone from the list, on every replica.
    let path = format!("/v2/{REPOSITORY}/manifests/{}", list.manifest.digest);
    client.delete(&path).await?.expect(202)?;
    for _ in 0..3 {
        let found = client.referrers(REPOSITORY, &image.manifest.digest).await?;
        ensure!(found.len() == 1, "{found:?}");
    }
    cluster.shut_down().await
}
