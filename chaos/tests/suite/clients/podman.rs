//! podman: pull, push, list, and a pull that finds another replica.

use std::fs;

use anyhow::{Result, ensure};
use tercet_chaos::{Tool, User};

use super::{
    DENIED, Ground, REFUSED, containers_distrust, containers_log_in, containers_tool, image_id,
    said, with_own_store,
};

#[tokio::test(flavor = "multi_thread")]
async fn podman_pulls_pushes_lists_and_falls_back() -> Result<()> {
    let mut ground = Ground::prepare().await?;
    let podman = with_own_store(containers_tool("podman", &ground)?, &ground);
    let images = ground.images.clone();
    for (name, image) in [("busybox", &images.busybox), ("debian", &images.debian)] {
        ground.seed(&format!("podman/{name}"), "v1", image).await?;
    }
    let pull = ["pull", &format!("{}/podman/busybox:v1", ground.host(0))];
    said(&podman.run_to_fail(&pull).await?, &REFUSED)?;
    containers_log_in(&podman, &ground).await?;

    for (name, image) in [("busybox", &images.busybox), ("debian", &images.debian)] {
        let from = format!("{}/podman/{name}:v1", ground.host(1));
        podman.run(&["pull", &from]).await?;
        let id = image_id(&podman, &from).await?;
        ensure!(format!("sha256:{id}") == image.blobs[0].digest, "{name} has the id {id}");

        // Podman compresses layers anew, so the digest it pushes is its own; the image's id is not.
        let to = format!("{}/podman/{name}-again:v1", ground.host(2));
        let digest_file = ground.text("digest");
        podman.run(&["push", "--digestfile", &digest_file, &from, &to]).await?;
        let digest = fs::read_to_string(&digest_file)?.trim().to_owned();
        podman.run(&["rmi", "--all", "--force"]).await?;
        let back = format!("{}/podman/{name}-again@{digest}", ground.host(0));
        podman.run(&["pull", &back]).await?;
        let again = image_id(&podman, &back).await?;
        ensure!(again == id, "{name} went as {id} and came back as {again}");

        let repository = format!("{}/podman/{name}-again", ground.host(1));
        let tags = podman.run(&["search", "--list-tags", &repository]).await?.stdout;
        ensure!(tags.contains("v1"), "{tags}");
        if name == "busybox" {
            // Bob may look, and nothing else.
            let push = ["push", "--creds", &User::BOB.pair(), &back, &to];
            said(&podman.run_to_fail(&push).await?, &DENIED)?;
        }
        podman.run(&["rmi", "--all", "--force"]).await?;
    }
    let found = podman.run(&["search", &format!("{}/podman", ground.host(2))]).await?.stdout;
    ensure!(found.contains("podman/debian-again"), "{found}");

    let untrusted = format!("{}/podman/debian:v1", ground.host(2));
    containers_distrust(&podman, &ground, 2, &["pull", &untrusted]).await?;
    falls_back(&podman, &mut ground).await?;
    ground.shut_down().await
}

/// One name for two replicas, the first of which is dead.
async fn falls_back(podman: &Tool, ground: &mut Ground) -> Result<()> {
    let settings = format!(
        "[[registry]]\nprefix = \"registry.example\"\nlocation = \"{}\"\n\n\
         [[registry.mirror]]\nlocation = \"{}\"\n",
        ground.host(0),
        ground.host(1),
    );
    fs::write(ground.path(".config/containers/registries.conf"), settings)?;
    ground.cluster.kill9(1)?;
    let name = "registry.example/podman/busybox:v1";
    podman.run(&["pull", name]).await?;
    let id = image_id(podman, name).await?;
    let wanted = &ground.images.busybox.blobs[0].digest;
    ensure!(format!("sha256:{id}") == *wanted, "the id is {id}, wanted {wanted}");
    Ok(())
}
