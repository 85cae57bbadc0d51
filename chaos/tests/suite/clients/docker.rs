//! Docker: a daemon of the test's own.

use anyhow::{Context, Result, ensure};
use tercet_chaos::{DockerDaemon, User};

use super::{DENIED, Ground, REFUSED, UNTRUSTED, WRONG, image_id, said};

/// What Docker says then.
const LOG_IN: [&str; 2] = ["docker login", "no basic auth credentials"];

#[tokio::test(flavor = "multi_thread")]
async fn docker_logs_in_pulls_and_pushes() -> Result<()> {
    let ground = Ground::prepare().await?;
    let images = &ground.images;
    let hosts = ground.hosts();
    let daemon = DockerDaemon::start(ground.cluster.authority()?, &hosts).await?;
    let docker = daemon.client()?;
    let kinds = [
        ("busybox", &images.busybox, &images.busybox),
        ("debian", &images.debian, &images.debian),
        // Of an index, Docker takes the image of its own platform.
        ("platforms", &images.platforms, &images.per_platform[0]),
    ];
    ground.seed("docker/busybox", "v1", &images.busybox).await?;
    ground.seed("docker/debian", "v1", &images.debian).await?;
    ground.seed_platforms("docker/platforms", "v1").await?;
    let pull = ["pull", &format!("{}/docker/busybox:v1", hosts[0])];
    said(&docker.run_to_fail(&pull).await?, &LOG_IN)?;
    let wrong = ["login", "-u", User::ALICE.name, "-p", WRONG, &hosts[0]];
    said(&docker.run_to_fail(&wrong).await?, &REFUSED)?;
    for host in &hosts {
        let login = ["login", "-u", User::ALICE.name, "--password-stdin", host];
        docker.run_with_input(&login, User::ALICE.password).await?;
    }

    for (name, pushed, image) in kinds {
        let from = format!("{}/docker/{name}:v1", hosts[1]);
        let pulled = docker.run(&["pull", &from]).await?.stdout;
        ensure!(pulled.contains(&pushed.manifest.digest), "pulled another digest: {pulled}");
        let id = image_id(&docker, &from).await?;
        ensure!(id == image.blobs[0].digest, "{name} has the id {id}");

        let to = format!("{}/docker/{name}-again:v1", hosts[2]);
        docker.run(&["tag", &from, &to]).await?;
        let said = docker.run(&["push", &to]).await?.stdout;
        let digest = said
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"))
            .with_context(|| format!("no digest in {said}"))?
            .to_owned();
        docker.run(&["rmi", &from, &to]).await?;
        let back = format!("{}/docker/{name}-again@{digest}", hosts[0]);
        docker.run(&["pull", &back]).await?;
        let again = image_id(&docker, &back).await?;
        ensure!(again == id, "{name} went as {id} and came back as {again}");
        docker.run(&["rmi", &back]).await?;
    }

    // Bob may pull, and nothing else.
    let login = ["login", "-u", User::BOB.name, "--password-stdin", &hosts[1]];
    docker.run_with_input(&login, User::BOB.password).await?;
    let from = format!("{}/docker/busybox:v1", hosts[1]);
    docker.run(&["pull", &from]).await?;
    let to = format!("{}/docker/bob:v1", hosts[1]);
    docker.run(&["tag", &from, &to]).await?;
    said(&docker.run_to_fail(&["push", &to]).await?, &DENIED)?;

    docker.run(&["logout", &hosts[2]]).await?;
    let pull = ["pull", &format!("{}/docker/busybox:v1", hosts[2])];
    said(&docker.run_to_fail(&pull).await?, &LOG_IN)?;
    daemon.forget(&hosts[0])?;
    let pull = ["pull", &format!("{}/docker/busybox:v1", hosts[0])];
    said(&docker.run_to_fail(&pull).await?, &UNTRUSTED)?;
    daemon.stop().await?;
    ground.shut_down().await
}
