//! Rules of the configuration that the group enforces: decided by whoever leads, the same everywhere.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use reqwest::Method;
use tercet_chaos::{Answer, Cluster, ClusterOptions, Image, RegistryClient, wait_until};

const REPOSITORY: &str = "library/released";
const DEADLINE: Duration = Duration::from_secs(60);
const RULES: &str = "[[access.immutable_tags]]
name = \"releases\"
repositories = [\"library/*\"]
tags = [\"v*\"]";

fn with_rules() -> ClusterOptions {
    ClusterOptions::default().extra_config(RULES)
}

async fn move_tag(client: &RegistryClient, tag: &str, image: &Image) -> Result<Answer> {
    let bytes = image.manifest.bytes.clone();
    client.put_manifest(REPOSITORY, tag, &image.media_type, bytes).await
}

/// Two images whose blobs are there.
async fn two_images(client: &RegistryClient) -> Result<(Image, Image)> {
    let (one, two) = (Image::random(1, &[1_000]), Image::random(2, &[1_000]));
    for image in [&one, &two] {
        client.push_image(REPOSITORY, &image.manifest.digest, image).await?;
    }
    Ok((one, two))
}

/// The first leader brings its rules in when it has a majority: with each try, a tag is made and moved.
async fn wait_enforced(client: &RegistryClient, one: &Image, two: &Image) -> Result<()> {
    let tries = AtomicUsize::new(0);
    wait_until("the rules are enforced", DEADLINE, || async {
        let number = tries.fetch_add(1, Ordering::Relaxed);
        let tag = format!("v0.{number}");
        move_tag(client, &tag, one).await?.expect(201)?;
        move_tag(client, &tag, two).await?.expect(409)?;
        Ok(())
    })
    .await
}

async fn ensure_tag(client: &RegistryClient, tag: &str, image: &Image) -> Result<()> {
    let answer = client.pull_manifest(REPOSITORY, tag).await?;
    ensure!(answer.body == image.manifest.bytes, "{tag} points elsewhere: {}", answer.describe());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_stays_through_any_replica_and_the_loss_of_the_leader() -> Result<()> {
    let mut cluster = Cluster::start_with(with_rules()).await?;
    let rotating = cluster.rotating_client()?;
    let (one, two) = two_images(&rotating).await?;
    wait_enforced(&rotating, &one, &two).await?;
    move_tag(&rotating, "v1", &one).await?.expect(201)?;
    for index in 0..3 {
        let client = cluster.client(index)?;
        let refused = move_tag(&client, "v1", &two).await?.expect_error(409, "DENIED")?;
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        ensure!(text.contains("v1") && text.contains("releases"), "which tag, which rule? {text}");
        // Several tags in one push: none of them, if one may not.
        let several = format!("{}?tag=new-{index}&tag=v1", two.manifest.digest);
        move_tag(&client, &several, &two).await?.expect_error(409, "DENIED")?;
        let path = format!("/v2/{REPOSITORY}/manifests");
        client.head(&format!("{path}/new-{index}")).await?.expect(404)?;
        for reference in ["v1", &one.manifest.digest] {
            let answer = client.call(Method::DELETE, &format!("{path}/{reference}")).await?;
            answer.expect_error(409, "DENIED")?;
        }
        // The same push again, a new tag, and tags that no rule covers are nobody's business.
        move_tag(&client, "v1", &one).await?.expect(201)?;
        move_tag(&client, &format!("v1.{index}"), &two).await?.expect(201)?;
        move_tag(&client, "latest", if index == 1 { &two } else { &one }).await?.expect(201)?;
        ensure_tag(&client, "v1", &one).await?;
    }

    let leader = cluster.leader().await?;
    cluster.kill9(leader)?;
    for survivor in (0..3).filter(|index| *index != leader) {
        let client = cluster.client(survivor)?;
        wait_until("the group decides again", DEADLINE, || async {
            let answer = move_tag(&client, "v1", &two).await?;
            assert_ne!(answer.status, 201, "the tag was moved: {}", answer.describe());
            answer.expect_error(409, "DENIED").map(drop)
        })
        .await?;
        ensure_tag(&client, "v1", &one).await?;
    }
    cluster.restart(leader)?;
    cluster.wait_ready(DEADLINE).await?;
    let returned = cluster.client(leader)?;
    move_tag(&returned, "v1", &two).await?.expect_error(409, "DENIED")?;
    ensure_tag(&returned, "v1", &one).await?;

    // Neither another leader nor a restart makes a key before its time.
    let made: usize = (0..3).map(|index| keys_made(&cluster, index)).sum();
    ensure!(made == 1, "{made} token keys were made");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_the_leaders_file_no_longer_has_are_lifted() -> Result<()> {
    let mut cluster = Cluster::start_with(with_rules()).await?;
    let rotating = cluster.rotating_client()?;
    let (one, two) = two_images(&rotating).await?;
    wait_enforced(&rotating, &one, &two).await?;
    move_tag(&rotating, "v1", &one).await?.expect(201)?;
    move_tag(&rotating, "v1", &two).await?.expect(409)?;
    let leader = cluster.leader().await?;
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    for index in &others {
        stop(&mut cluster, *index).await?;
        let config = &cluster.replica(*index).config;
        let text = fs::read_to_string(config)?;
        let Some((before, _)) = text.split_once(RULES) else { bail!("no rules in {text}") };
        fs::write(config, before)?;
        cluster.restart(*index)?;
        cluster.wait_ready(DEADLINE).await?;
        cluster.wait_caught_up(*index, DEADLINE).await?;
    }
    // The files differ now; the next leader is one of those without rules.
    stop(&mut cluster, leader).await?;
    for index in others {
        let client = cluster.client(index)?;
        wait_until("the rules are lifted", DEADLINE, || async {
            move_tag(&client, "v1", &two).await?.expect(201).map(drop)
        })
        .await?;
        ensure_tag(&client, "v1", &two).await?;
        move_tag(&client, "v1", &one).await?.expect(201)?;
    }
    cluster.restart(leader)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_come_and_go_with_the_files_without_a_restart() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.rotating_client()?;
    let (one, two) = two_images(&client).await?;
    for image in [&one, &two, &one] {
        move_tag(&client, "v1", image).await?.expect(201)?;
    }
    let mut before = Vec::new();
    for index in 0..3 {
        let config = &cluster.replica(index).config;
        before.push(fs::read_to_string(config)?);
        fs::write(config, format!("{}\n{RULES}\n", before[index]))?;
    }
    wait_enforced(&client, &one, &two).await?;
    move_tag(&client, "v1", &two).await?.expect_error(409, "DENIED")?;
    for (index, text) in before.iter().enumerate() {
        fs::write(&cluster.replica(index).config, text)?;
    }
    wait_until("the rules are lifted", DEADLINE, || async {
        move_tag(&client, "v1", &two).await?.expect(201).map(drop)
    })
    .await?;
    ensure_tag(&client, "v1", &two).await?;
    cluster.shut_down().await
}

/// How many token keys a replica has made, by its log.
fn keys_made(cluster: &Cluster, index: usize) -> usize {
    cluster.replica(index).log_text().matches("a new key signs tokens").count()
}

async fn stop(cluster: &mut Cluster, index: usize) -> Result<()> {
    cluster.term(index)?;
    let status = cluster.wait_exit(index, DEADLINE).await?;
    ensure!(status.success(), "stopped with {status}");
    Ok(())
}
