//! Real clients with real images: pushed through one replica, pulled through another, byte for byte.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tercet_chaos::{Cluster, DockerDaemon, Image, Layout, RealImages, Tool};

/// Digests of everything below a root, which are the same if and only if the bytes are.
fn same_content(images: &RealImages, pulled: &Layout, image: &Image) -> Result<()> {
    let digest = &image.manifest.digest;
    let roots = pulled.roots()?;
    ensure!(roots.iter().any(|root| &root.digest == digest), "{digest} is not in {roots:?}");
    let wanted: BTreeSet<String> = images.layout.verify(digest)?;
    let found = pulled.verify(digest)?;
    ensure!(wanted == found, "pushed {wanted:?}, pulled {found:?}");
    Ok(())
}

/// Puts an image into the registry without any of the clients under test, and checks it on all replicas.
async fn seed(cluster: &Cluster, repository: &str, tag: &str, image: &Image) -> Result<()> {
    cluster.client(0)?.push_image(repository, tag, image).await?;
    for replica in 0..cluster.len() {
        cluster.client(replica)?.pull_image(repository, tag, image).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_every_kind_of_image_there_and_back() -> Result<()> {
    let skopeo = Tool::find("skopeo")?;
    let images = RealImages::get().await?;
    let cluster = Cluster::start().await?;
    let folder = TempDir::new()?;
    let kinds = [
        ("busybox", &images.busybox),
        ("debian", &images.debian),
        ("platforms", &images.platforms),
    ];
    for (number, (name, image)) in kinds.into_iter().enumerate() {
        let (push, pull) = (number % 3, (number + 1) % 3);
        let source = format!("oci:{}:{name}", images.layout.text());
        let there = format!("docker://{}/skopeo/{name}:v1", cluster.registry_host(push));
        let exact = ["copy", "--all", "--preserve-digests"];
        let arguments = [&exact[..], &["--dest-tls-verify=false", &source, &there]].concat();
        skopeo.run(&arguments).await?;
        let back = folder.path().join(name);
        let target = format!("oci:{}:v1", back.display());
        let there = format!("docker://{}/skopeo/{name}:v1", cluster.registry_host(pull));
        let arguments = [&exact[..], &["--src-tls-verify=false", &there, &target]].concat();
        skopeo.run(&arguments).await?;
        same_content(&images, &Layout::open(&back)?, image).context(name)?;
        let host = cluster.registry_host((number + 2) % 3);
        let reference = format!("docker://{host}/skopeo/{name}");
        let tags = skopeo.run(&["list-tags", "--tls-verify=false", &reference]).await?;
        ensure!(tags.stdout.contains("\"v1\""), "{}", tags.stdout);
    }
    cluster.shut_down().await
}

/// The digest of an image's config, as a local store knows it.
async fn image_id(client: &Tool, own: &[&str], reference: &str) -> Result<String> {
    let inspect = ["image", "inspect", "-f", "{{.Id}}", reference];
    let output = client.run(&[own, &inspect[..]].concat()).await?;
    Ok(output.stdout.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_pulls_and_pushes() -> Result<()> {
    let podman = Tool::find("podman")?;
    let images = RealImages::get().await?;
    let cluster = Cluster::start().await?;
    let folder = TempDir::new()?;
    let store = |name: &str| folder.path().join(name).display().to_string();
    let (root, runroot) = (store("root"), store("run"));
    let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    for (name, image) in [("busybox", &images.busybox), ("debian", &images.debian)] {
        seed(&cluster, &format!("podman/{name}"), "v1", image).await?;
        let from = format!("{}/podman/{name}:v1", cluster.registry_host(1));
        podman.run(&[&own[..], &["pull", "--tls-verify=false", &from]].concat()).await?;
        let id = image_id(&podman, &own, &from).await?;
        ensure!(format!("sha256:{id}") == image.blobs[0].digest, "{name} has the id {id}");

        // Podman compresses layers anew, so the digest it pushes is its own; the image's id is not.
        let to = format!("{}/podman/{name}-again:v1", cluster.registry_host(2));
        let digest_file = store("digest");
        let push = ["push", "--tls-verify=false", "--digestfile", &digest_file, &from, &to];
        podman.run(&[&own[..], &push].concat()).await?;
        let digest = fs::read_to_string(&digest_file)?.trim().to_owned();
        podman.run(&[&own[..], &["rmi", "--all", "--force"]].concat()).await?;
        let back = format!("{}/podman/{name}-again@{digest}", cluster.registry_host(0));
        podman.run(&[&own[..], &["pull", "--tls-verify=false", &back]].concat()).await?;
        let again = image_id(&podman, &own, &back).await?;
        ensure!(again == id, "{name} went as {id} and came back as {again}");
        podman.run(&[&own[..], &["rmi", "--all", "--force"]].concat()).await?;
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pulls_and_pushes() -> Result<()> {
    let images = RealImages::get().await?;
    let cluster = Cluster::start().await?;
    let daemon = DockerDaemon::start().await?;
    let docker = daemon.client()?;
    let kinds = [
        ("busybox", &images.busybox, &images.busybox),
        ("debian", &images.debian, &images.debian),
        // Of an index, Docker takes the image of its own platform.
        ("platforms", &images.platforms, &images.per_platform[0]),
    ];
    for image in &images.per_platform {
        seed(&cluster, "docker/platforms", &image.manifest.digest, image).await?;
    }
    for (name, pushed, image) in kinds {
        seed(&cluster, &format!("docker/{name}"), "v1", pushed).await?;
        let from = format!("{}/docker/{name}:v1", cluster.registry_host(1));
        let pulled = docker.run(&["pull", &from]).await?.stdout;
        ensure!(pulled.contains(&pushed.manifest.digest), "pulled another digest: {pulled}");
        let id = image_id(&docker, &[], &from).await?;
        ensure!(id == image.blobs[0].digest, "{name} has the id {id}");

        let to = format!("{}/docker/{name}-again:v1", cluster.registry_host(2));
        docker.run(&["tag", &from, &to]).await?;
        let said = docker.run(&["push", &to]).await?.stdout;
        let digest = said
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"))
            .with_context(|| format!("no digest in {said}"))?
            .to_owned();
        docker.run(&["rmi", &from, &to]).await?;
        let back = format!("{}/docker/{name}-again@{digest}", cluster.registry_host(0));
        docker.run(&["pull", &back]).await?;
        let again = image_id(&docker, &[], &back).await?;
        ensure!(again == id, "{name} went as {id} and came back as {again}");
        docker.run(&["rmi", &back]).await?;
    }
    daemon.stop().await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_pushes_pulls_and_validates() -> Result<()> {
    let Some(crane) = Tool::find_go_built("crane")? else { return Ok(()) };
    let images = RealImages::get().await?;
    let cluster = Cluster::start().await?;
    let folder = TempDir::new()?;
    // crane takes a layout with a single image.
    for (name, image, kind) in [
        ("busybox", &images.busybox, "--index=false"),
        ("debian", &images.debian, "--index=false"),
        ("platforms", &images.platforms, "--index=true"),
    ] {
        let source = Layout::create(&folder.path().join(format!("{name}-source")))?;
        for child in &images.per_platform {
            source.add(child)?;
        }
        source.add_tagged(image, name)?;
        let reference = |replica| format!("{}/crane/{name}:v1", cluster.registry_host(replica));
        crane.run(&["push", "--insecure", kind, &source.text(), &reference(0)]).await?;
        let digest = crane.run(&["digest", "--insecure", &reference(1)]).await?.stdout;
        // An index of one image is pushed as that index; its only child is the image.
        let digest = digest.trim().to_owned();
        crane.run(&["validate", "--insecure", "--remote", &reference(2)]).await?;
        let back = folder.path().join(format!("{name}-back"));
        let path = back.display().to_string();
        crane.run(&["pull", "--insecure", "--format=oci", &reference(2), &path]).await?;
        let pulled = Layout::open(&back)?;
        let wanted: BTreeSet<String> = images.layout.verify(&image.manifest.digest)?;
        let found = pulled.verify(&digest)?;
        ensure!(found.is_superset(&wanted), "pushed {wanted:?}, pulled {found:?}");
        let list = format!("{}/crane/{name}", cluster.registry_host(1));
        let tags = crane.run(&["ls", "--insecure", &list]).await?.stdout;
        ensure!(tags.trim() == "v1", "tags {tags}");
        let copy = format!("{}/crane/{name}-copy:v1", cluster.registry_host(0));
        crane.run(&["copy", "--insecure", &reference(1), &copy]).await?;
        let copied = crane.run(&["digest", "--insecure", &copy]).await?.stdout;
        ensure!(copied.trim() == digest, "copied {copied}");
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn oras_copies_attaches_and_discovers() -> Result<()> {
    let Some(oras) = Tool::find_go_built("oras-client")? else { return Ok(()) };
    let images = RealImages::get().await?;
    let cluster = Cluster::start().await?;
    let folder = TempDir::new()?;
    let reference =
        |replica, name: &str| format!("{}/oras/all:{name}", cluster.registry_host(replica));
    for (name, image) in [
        ("busybox", &images.busybox),
        ("debian", &images.debian),
        ("platforms", &images.platforms),
        ("bill-of-materials", &images.artifact),
    ] {
        let layout = images.layout.text();
        let digest = oras.run(&["push", &layout, name, &reference(0, name)]).await?.stdout;
        ensure!(digest.trim() == image.manifest.digest, "pushed {digest}");
        let back = folder.path().join(name);
        let path = back.display().to_string();
        oras.run(&["pull", &reference(2, name), &path]).await?;
        same_content(&images, &Layout::open(&back)?, image).context(name)?;
    }
    // The artifact came with its subject's digest in it, so the registry knows it as a referrer.
    let found = oras.run(&["discover", &reference(1, "debian"), RealImages::ARTIFACT_TYPE]).await?;
    ensure!(found.stdout.trim() == images.artifact.manifest.digest, "{}", found.stdout);

    let file = folder.path().join("signature");
    fs::write(&file, "a signature")?;
    let (file, kind) = (file.display().to_string(), "application/vnd.example.signature");
    let attached = oras.run(&["attach", &reference(1, "busybox"), kind, &file]).await?.stdout;
    for replica in 0..cluster.len() {
        let found = oras.run(&["discover", &reference(replica, "busybox"), kind]).await?.stdout;
        ensure!(found == attached, "replica {replica} knows {found}, attached was {attached}");
    }
    cluster.shut_down().await
}
