//! buildah: builds on an image of the registry, and pushes in both formats.

use std::fs;

use anyhow::{Result, ensure};
use tercet_chaos::MediaType;

use super::{
    Ground, REFUSED, containers_distrust, containers_log_in, containers_tool, said, with_own_store,
};

#[tokio::test(flavor = "multi_thread")]
async fn buildah_builds_on_pushes_and_pulls() -> Result<()> {
    let ground = Ground::prepare().await?;
    let buildah = with_own_store(containers_tool("buildah", &ground)?, &ground);
    ground.seed("buildah/base", "v1", &ground.images.busybox).await?;
    let base = format!("{}/buildah/base:v1", ground.host(0));
    said(&buildah.run_to_fail(&["from", &base]).await?, &REFUSED)?;
    containers_log_in(&buildah, &ground).await?;

    let container = buildah.run(&["from", &base]).await?.stdout.trim().to_owned();
    fs::write(ground.path("hello"), "hello\n")?;
    buildah.run(&["copy", &container, &ground.text("hello"), "/hello"]).await?;
    for (format, kind) in [("oci", MediaType::MANIFEST), ("docker", MediaType::DOCKER_MANIFEST)] {
        let name = format!("{}/buildah/{format}:v1", ground.host(1));
        let commit = ["commit", "--format", format, &container, &name];
        let id = buildah.run(&commit).await?.stdout;
        let digest_file = ground.text("digest");
        buildah.run(&["push", "--digestfile", &digest_file, &name]).await?;
        let digest = fs::read_to_string(&digest_file)?.trim().to_owned();
        let seen = ground.cluster.client(0)?;
        let manifest = seen.pull_manifest(&format!("buildah/{format}"), &digest).await?;
        ensure!(manifest.need_header("content-type")? == kind, "{}", manifest.describe());

        buildah.run(&["rmi", "--force", &name]).await?;
        let from = format!("{}/buildah/{format}@{digest}", ground.host(2));
        let pulled = buildah.run(&["pull", &from]).await?.stdout;
        ensure!(pulled == id, "{format} went as {id} and came back as {pulled}");
    }

    // Builds from files; the second one's base is what the first one pushed.
    let built = format!("{}/buildah/built:v1", ground.host(0));
    let next = format!("{}/buildah/next:v1", ground.host(1));
    let base = format!("{}/buildah/built:v1", ground.host(2));
    for (from, change, name) in
        [("scratch", "COPY hello /hello", &built), (&base, "COPY hello /again", &next)]
    {
        fs::write(ground.path("Containerfile"), format!("FROM {from}\n{change}\n"))?;
        buildah.run(&["build", "--quiet", "-f", "Containerfile", "-t", name, "."]).await?;
        buildah.run(&["push", name]).await?;
    }
    let client = ground.cluster.client(0)?;
    let layers = client.pull_manifest("buildah/next", "v1").await?.json()?;
    let layers = layers.pointer("/layers").and_then(|layers| layers.as_array()).map(Vec::len);
    ensure!(layers == Some(2), "{layers:?} layers");

    let again = format!("{}/buildah/built:v1", ground.host(1));
    let pull = ["pull", "--policy", "always", &again];
    containers_distrust(&buildah, &ground, 1, &pull).await?;
    ground.shut_down().await
}
