//! skopeo: copy, sync, inspect, delete.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tercet_chaos::{Layout, Tool, User};

use super::{
    DENIED, Ground, REFUSED, containers_distrust, containers_log_in, containers_tool, said,
    same_content,
};

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_syncs_inspects_and_deletes() -> Result<()> {
    let ground = Ground::prepare().await?;
    let skopeo = containers_tool("skopeo", &ground)?;
    let images = &ground.images;
    let source = |name: &str| format!("oci:{}:{name}", images.layout.text());
    let there = |replica, name: &str| format!("docker://{}/skopeo/{name}", ground.host(replica));

    ground.seed("skopeo/busybox", "seeded", &images.busybox).await?;
    said(&skopeo.run_to_fail(&["inspect", &there(0, "busybox:seeded")]).await?, &REFUSED)?;
    containers_log_in(&skopeo, &ground).await?;

    let exact = ["copy", "--all", "--preserve-digests"];
    for (number, (name, image)) in
        [("busybox", &images.busybox), ("debian", &images.debian), ("platforms", &images.platforms)]
            .into_iter()
            .enumerate()
    {
        let tagged = format!("{name}:v1");
        let to = there(number % 3, &tagged);
        skopeo.run(&[&exact[..], &[&source(name), &to]].concat()).await?;
        let back = format!("oci:{}:v1", ground.text(name));
        let from = there((number + 1) % 3, &tagged);
        skopeo.run(&[&exact[..], &[&from, &back]].concat()).await?;
        same_content(images, &Layout::open(&ground.path(name))?, image).context(name)?;
        let about = skopeo.run(&["inspect", &there((number + 2) % 3, &tagged)]).await?.stdout;
        let about: Value = serde_json::from_str(&about)?;
        ensure!(about["Digest"] == image.manifest.digest, "{about}");
        let tags = skopeo.run(&["list-tags", &there(number % 3, name)]).await?.stdout;
        ensure!(tags.contains("\"v1\""), "{tags}");
    }

    sync(&skopeo, &ground).await?;

    // Bob may look, and nothing else.
    let (bob, image, copy) = (User::BOB.pair(), there(0, "busybox:v1"), there(1, "bob:v1"));
    skopeo.run(&["inspect", "--creds", &bob, &image]).await?;
    let push = ["copy", "--src-creds", &bob, "--dest-creds", &bob, &image, &copy];
    said(&skopeo.run_to_fail(&push).await?, &DENIED)?;
    said(&skopeo.run_to_fail(&["delete", "--creds", &bob, &image]).await?, &DENIED)?;

    // A deletion is of the digest: every tag of it goes.
    skopeo.run(&["delete", &there(2, "busybox:v1")]).await?;
    for reference in ["v1", "seeded", &images.busybox.manifest.digest] {
        ground.check_gone("skopeo/busybox", reference).await?;
    }
    containers_distrust(&skopeo, &ground, 0, &["inspect", &there(0, "debian:v1")]).await?;
    ground.shut_down().await
}

/// A whole repository into a folder, from there into another, and as a file of wishes says.
async fn sync(skopeo: &Tool, ground: &Ground) -> Result<()> {
    let folder = ground.text("synced");
    fs::create_dir_all(&folder)?;
    let repository = format!("{}/skopeo/platforms", ground.host(1));
    let from_registry = ["sync", "--all", "--src", "docker", "--dest", "dir"];
    skopeo.run(&[&from_registry[..], &[&repository, &folder]].concat()).await?;
    let target = format!("{}/from-folder", ground.host(2));
    let from_folder = ["sync", "--all", "--src", "dir", "--dest", "docker"];
    skopeo.run(&[&from_folder[..], &[&folder, &target]].concat()).await?;
    let platforms = &ground.images.platforms;
    ground.check(0, "from-folder/platforms", "v1", platforms).await?;

    let wishes = format!("{}:\n  images:\n    skopeo/platforms: [v1]\n", ground.host(0));
    fs::write(ground.path("wishes.yaml"), wishes)?;
    let target = format!("{}/from-list", ground.host(1));
    let from_list = ["sync", "--all", "--src", "yaml", "--dest", "docker"];
    skopeo.run(&[&from_list[..], &[&ground.text("wishes.yaml"), &target]].concat()).await?;
    ground.check(2, "from-list/platforms", "v1", platforms).await
}
