//! A rolling upgrade, from data that the former version wrote: nothing new is written before all replicas
//! understand it, and nothing old is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use tercet_chaos::{Cluster, ClusterOptions, Image, Launch, Tool, wait_until};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cluster-level-1");
const PEERS: [&str; 3] =
    ["http://127.77.4.1:15001", "http://127.77.4.2:15001", "http://127.77.4.3:15001"];
const RULES: &str = "[[access.immutable_tags]]
name = \"releases\"
repositories = [\"releases/**\"]
tags = [\"v*\"]";
const DEADLINE: Duration = Duration::from_secs(90);
/// Makes a binary behave as the former version.
const FORMER: (&str, &str) = ("TERCET_TEST_FEATURE_LEVEL", "1");

/// What the saved cluster holds.
#[derive(Deserialize)]
struct Saved {
    /// Repository, tag, digest.
    tags: Vec<(String, String, String)>,
    /// Repository, tag.
    deleted: Vec<(String, String)>,
    /// Repository, digest of the image, digest of what refers to it.
    referrer: (String, String, String),
    /// Repository, digest of a blob that no manifest names.
    unreferenced: (String, String),
}

/// Everything that was in the saved cluster, through one replica.
async fn ensure_all_there(cluster: &Cluster, index: usize, saved: &Saved) -> Result<()> {
    let client = cluster.client(index)?;
    for (repository, tag, digest) in &saved.tags {
        let answer = client.pull_manifest(repository, tag).await?;
        let found = answer.need_header("docker-content-digest")?;
        ensure!(found == digest, "{repository}:{tag} is {found}, it was {digest}");
        let manifest: Value = serde_json::from_slice(&answer.body)?;
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        for descriptor in layers.iter().chain(manifest.get("config")) {
            let digest = descriptor["digest"].as_str().context("a descriptor has a digest")?;
            client.pull_blob(repository, digest).await?;
        }
        for child in manifest["manifests"].as_array().unwrap_or(&Vec::new()) {
            let digest = child["digest"].as_str().context("a descriptor has a digest")?;
            client.pull_manifest(repository, digest).await?;
        }
    }
    for (repository, tag) in &saved.deleted {
        client.get_manifest(repository, tag).await?.expect(404)?;
    }
    let (repository, image, referrer) = &saved.referrer;
    let path = format!("/v2/{repository}/referrers/{image}");
    let list = client.get(&path).await?.expect(200)?;
    let text = String::from_utf8_lossy(&list.body).into_owned();
    ensure!(text.contains(referrer.as_str()), "{path}: {text}");
    let (repository, blob) = &saved.unreferenced;
    client.pull_blob(repository, blob).await?;
    Ok(())
}

async fn push_through_each(cluster: &Cluster, tag: &str) -> Result<()> {
    for index in 0..3 {
        let image = Image::random(index as u64 + 50, &[20_000]);
        let tag = format!("{tag}-{index}");
        cluster.client(index)?.push_image("team/after", &tag, &image).await?;
        for reader in 0..3 {
            cluster.client(reader)?.pull_image("team/after", &tag, &image).await?;
        }
    }
    Ok(())
}

async fn ensure_level(cluster: &Cluster, level: u32) -> Result<()> {
    for index in 0..3 {
        let found = cluster.status(index).await?.feature_level;
        ensure!(found == level, "replica {index} is at feature level {found}, not {level}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_of_saved_data_and_no_way_back() -> Result<()> {
    let saved: Saved = serde_json::from_slice(&std::fs::read(format!("{GOLDEN}.json"))?)?;
    let options = ClusterOptions::default().peers_at(&PEERS).extra_config(RULES);
    let mut cluster = Cluster::prepare(options).await?;
    let folder = cluster.folder().display().to_string();
    let archive = format!("{GOLDEN}.tar.gz");
    Tool::find("tar")?.run(&["xzf", &archive, "-C", &folder]).await?;

    // Two are upgraded, one is not yet.
    cluster.set_launch(2, Launch::default().with(FORMER.0, FORMER.1));
    for index in 0..3 {
        cluster.restart(index)?;
    }
    cluster.wait_ready(DEADLINE).await?;
    for index in 0..3 {
        ensure_all_there(&cluster, index, &saved).await?;
    }
    push_through_each(&cluster, "mixed").await?;
    // What needs the new level waits, and says for what.
    let config = cluster.replica(0).config.display().to_string();
    let arguments =
        ["member", "remove", "tercet-2", "--yes", "--timeout", "5", "--config", &config];
    let said = cluster.command().run_to_fail(&arguments).await?;
    ensure!(said.contains("feature level"), "{said}");
    ensure_level(&cluster, 1).await?;
    println!("with one former replica: level 1, and a level-2 command answers: {}", said.trim());

    // Each of the upgraded ones may lead meanwhile, and the level stays.
    let leader = cluster.leader().await?;
    if leader != 2 {
        cluster.term(leader)?;
        cluster.wait_exit(leader, DEADLINE).await?;
        cluster.restart(leader)?;
        cluster.wait_ready(DEADLINE).await?;
    }
    ensure_level(&cluster, 1).await?;

    // The last one is upgraded.
    cluster.term(2)?;
    cluster.wait_exit(2, DEADLINE).await?;
    cluster.set_launch(2, Launch::default());
    cluster.restart(2)?;
    wait_until("the level rises", DEADLINE, || ensure_level(&cluster, 2)).await?;
    cluster.wait_ready(DEADLINE).await?;
    for index in 0..3 {
        ensure_all_there(&cluster, index, &saved).await?;
    }
    push_through_each(&cluster, "upgraded").await?;

    // The former version does not start on what the new one has written.
    for index in [2, 0] {
        cluster.term(index)?;
        cluster.wait_exit(index, DEADLINE).await?;
        cluster.set_launch(index, Launch::default().with(FORMER.0, FORMER.1));
        cluster.restart(index)?;
        let ended = cluster.wait_exit(index, DEADLINE).await?;
        let log = cluster.replica(index).log_tail();
        ensure!(ended.code() == Some(65), "it ended with {ended}\n{log}");
        let last = log.lines().last().unwrap_or_default().to_owned();
        ensure!(last.contains("TERCET-M11") && last.contains("upgrade.md"), "{last}");
        println!("the former version on new data: {last}");
        cluster.set_launch(index, Launch::default());
        cluster.restart(index)?;
        cluster.wait_ready(DEADLINE).await?;
    }
    for index in 0..3 {
        ensure_all_there(&cluster, index, &saved).await?;
    }
    cluster.shut_down().await
}
