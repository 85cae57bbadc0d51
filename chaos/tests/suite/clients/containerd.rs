//! containerd, which knows all replicas under one name.

use std::time::Duration;

use anyhow::{Result, ensure};
use tercet_chaos::{ContainerdDaemon, Image, Tool, User, within};

use super::{Ground, REFUSED, UNTRUSTED, WRONG, said};

/// What the images are called; no name server knows it.
const NAME: &str = "registry.example";
/// So much of the image is there when the replica dies.
const KILL_AT_BYTES: u64 = 2 << 20;
/// Short, so that the replica does not die after the pull.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const PULL_DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_on_when_a_replica_dies() -> Result<()> {
    let options = Ground::options().setting("log", "level", "\"info,tercet::access=debug\"");
    let mut ground = Ground::prepare_with(options).await?;
    let daemon = ContainerdDaemon::start().await?;
    let ctr = daemon.client();
    let order = [ground.host(1), ground.host(2), ground.host(0)];
    daemon.name_hosts(NAME, ground.cluster.authority()?, &order)?;
    let hosts = daemon.hosts_folder().display().to_string();
    let debian = ground.images.debian.clone();
    ground.seed("containerd/debian", "v1", &debian).await?;
    ground.seed_platforms("containerd/platforms", "v1").await?;

    let image = format!("{NAME}/containerd/debian:v1");
    let alice = User::ALICE.pair();
    let pull = ["images", "pull", "--hosts-dir", &hosts];
    let as_alice = [&pull[..], &["--user", &alice]].concat();
    said(&ctr.run_to_fail(&[&pull[..], &[&image]].concat()).await?, &REFUSED)?;
    let wrong = format!("{}:{WRONG}", User::ALICE.name);
    let wrong = [&pull[..], &["--user", &wrong, &image]].concat();
    said(&ctr.run_to_fail(&wrong).await?, &REFUSED)?;
    let unknown = format!("{}/containerd/debian:v1", ground.host(0));
    let unknown = ["images", "pull", "--user", &alice, &unknown];
    said(&ctr.run_to_fail(&unknown).await?, &UNTRUSTED)?;

    // The pull whose first replica dies while it sends.
    let slow = [&as_alice[..], &["--max-concurrent-downloads", "1", &image]].concat();
    let before = daemon.content_bytes();
    let kill = async {
        // Files come and go while they are counted: the sum may for a moment be less than before.
        while daemon.content_bytes().saturating_sub(before) < KILL_AT_BYTES {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        ground.cluster.kill9(1)
    };
    let kill = within("a part of the image is there", PULL_DEADLINE, kill);
    let (pulled, killed) = tokio::join!(ctr.run(&slow), kill);
    killed?;
    pulled?;
    for (replica, asked) in
        [(1, "/v2/containerd/debian/manifests/"), (2, "/v2/containerd/debian/blobs/")]
    {
        let log = ground.cluster.replica(replica).log_text();
        let asked = format!("method=\"GET\" path=\"{asked}");
        ensure!(log.contains(&asked), "replica {replica} has no {asked}");
    }
    check_content(&ctr, &image, &[&debian]).await?;

    // And one that finds it dead from the start.
    let image = format!("{NAME}/containerd/platforms:v1");
    ctr.run(&[&as_alice[..], &["--all-platforms", &image]].concat()).await?;
    let of_each = ground.images.per_platform.iter();
    let platforms: Vec<&Image> = [&ground.images.platforms].into_iter().chain(of_each).collect();
    check_content(&ctr, &image, &platforms).await?;

    let again = format!("{NAME}/containerd/again:v1");
    ctr.run(&["images", "tag", &format!("{NAME}/containerd/debian:v1"), &again]).await?;
    let push = ["images", "push", "--hosts-dir", &hosts];
    said(&ctr.run_to_fail(&[&push[..], &[&again]].concat()).await?, &REFUSED)?;
    ctr.run(&[&push[..], &["--user", &alice, &again]].concat()).await?;
    ground.check(2, "containerd/again", "v1", &debian).await?;
    daemon.stop().await?;
    ground.shut_down().await
}

/// containerd has hashed what it got; here, that the name is the first image's, and that all of it is there.
async fn check_content(ctr: &Tool, name: &str, images: &[&Image]) -> Result<()> {
    let named = ctr.run(&["images", "ls", &format!("name=={name}")]).await?.stdout;
    let held = ctr.run(&["content", "ls", "--quiet"]).await?.stdout;
    for (number, image) in images.iter().enumerate() {
        let digest = &image.manifest.digest;
        ensure!(number > 0 || named.contains(digest), "{name} is not {digest}: {named}");
        for blob in image.blobs.iter().chain([&image.manifest]) {
            ensure!(held.lines().any(|line| line == blob.digest), "{} is missing", blob.digest);
        }
    }
    Ok(())
}
