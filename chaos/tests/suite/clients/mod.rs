//! The clients that people use with a registry: real ones, over HTTPS with a private authority, and with users
//! who have to log in. `docs/src/clients.md` says how each is set up; the tests do what it says.
//!
//! Every test shows the same of its client: nobody gets in without a log-in, with a wrong password or without
//! the authority; then it pushes through one replica, pulls through another, and lists and deletes where it can.

mod buildah;
mod containerd;
mod cosign;
mod crane;
mod docker;
mod helm;
mod oras;
mod podman;
mod regctl;
mod skopeo;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tercet_chaos::{Cluster, ClusterOptions, Image, Layout, Listener, RealImages, Tool, User};

/// What clients say when the registry does not know them.
const REFUSED: [&str; 5] =
    ["401", "unauthorized", "authentication required", "authorization failed", "invalid username"];
/// What they say when they cannot be sure of the registry.
const UNTRUSTED: [&str; 2] = ["x509", "certificate"];
/// What they say when the registry knows them, and what they may not do.
const DENIED: [&str; 3] = ["403", "denied", "forbidden"];
/// A password of nobody.
const WRONG: &str = "not-the-password";

/// A cluster in use, and a user's home folder.
struct Ground {
    cluster: Cluster,
    images: RealImages,
    home: TempDir,
}

impl Ground {
    async fn prepare() -> Result<Self> {
        Self::prepare_with(Self::options()).await
    }

    fn options() -> ClusterOptions {
        ClusterOptions::secured().on_network().tls(Listener::Ops)
    }

    async fn prepare_with(options: ClusterOptions) -> Result<Self> {
        let images = RealImages::get().await?;
        let home = TempDir::new()?;
        Ok(Self { cluster: Cluster::start_with(options).await?, images, home })
    }

    /// `host:port` of a replica, as image names carry it.
    fn host(&self, replica: usize) -> String {
        self.cluster.registry_host(replica)
    }

    fn hosts(&self) -> Vec<String> {
        (0..self.cluster.len()).map(|replica| self.host(replica)).collect()
    }

    /// The authority's certificate.
    fn ca(&self) -> Result<String> {
        Ok(self.cluster.authority()?.certificate_text())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// [`Self::path`] as clients take it.
    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Puts an image into the registry without any of the clients under test.
    async fn seed(&self, repository: &str, tag: &str, image: &Image) -> Result<()> {
        self.cluster.client(0)?.push_image(repository, tag, image).await
    }

    /// As [`Self::seed`], for an image of two platforms.
    async fn seed_platforms(&self, repository: &str, tag: &str) -> Result<()> {
        for image in &self.images.per_platform {
            self.seed(repository, &image.manifest.digest, image).await?;
        }
        self.seed(repository, tag, &self.images.platforms).await
    }

    /// What a replica has of an image must be the given one, byte for byte.
    async fn check(
        &self,
        replica: usize,
        repository: &str,
        tag: &str,
        image: &Image,
    ) -> Result<()> {
        self.cluster.client(replica)?.pull_image(repository, tag, image).await?;
        Ok(())
    }

    /// No replica knows the tag or digest any more.
    async fn check_gone(&self, repository: &str, reference: &str) -> Result<()> {
        for replica in 0..self.cluster.len() {
            let client = self.cluster.client(replica)?;
            let answer = client.get_manifest(repository, reference).await?;
            answer.expect_error(404, "MANIFEST_UNKNOWN")?;
        }
        Ok(())
    }

    async fn shut_down(self) -> Result<()> {
        self.cluster.shut_down().await
    }
}

/// Fails unless a client was stopped for one of the reasons.
fn said(output: &str, reasons: &[&str]) -> Result<()> {
    let lower = output.to_lowercase();
    ensure!(reasons.iter().any(|reason| lower.contains(reason)), "none of {reasons:?}: {output}");
    Ok(())
}

/// A layout with what is below a root must hold exactly what was pushed.
fn same_content(images: &RealImages, pulled: &Layout, image: &Image) -> Result<()> {
    let digest = &image.manifest.digest;
    let roots = pulled.roots()?;
    ensure!(roots.iter().any(|root| &root.digest == digest), "{digest} is not in {roots:?}");
    let wanted: BTreeSet<String> = images.layout.verify(digest)?;
    let found = pulled.verify(digest)?;
    ensure!(wanted == found, "pushed {wanted:?}, pulled {found:?}");
    Ok(())
}

/// The digest of an image's config, as a local store knows it.
async fn image_id(client: &Tool, reference: &str) -> Result<String> {
    let output = client.run(&["image", "inspect", "-f", "{{.Id}}", reference]).await?;
    Ok(output.stdout.trim().to_owned())
}

/// podman and buildah with an image store of the test's own.
fn with_own_store(tool: Tool, ground: &Ground) -> Tool {
    let (root, runroot) = (ground.text("root"), ground.text("run"));
    tool.first(&["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"])
}

/// podman, buildah and skopeo share where they look for authorities and log-ins. This one has its own place.
fn containers_tool(name: &str, ground: &Ground) -> Result<Tool> {
    let certificates = ground.path(".config/containers/certs.d");
    for host in ground.hosts() {
        ground.cluster.authority()?.install(&certificates.join(host).join("ca.crt"))?;
    }
    // Else root's log-ins would be kept for the whole machine.
    let log_ins = ground.path("auth.json");
    fs::write(&log_ins, "{}")?;
    Ok(Tool::find(name)?.at_home(ground.home.path()).with("REGISTRY_AUTH_FILE", log_ins))
}

/// What they do alike: refuse a wrong password, take the right one for every replica.
async fn containers_log_in(tool: &Tool, ground: &Ground) -> Result<()> {
    let wrong = ["login", "-u", User::ALICE.name, "-p", WRONG, &ground.host(0)];
    said(&tool.run_to_fail(&wrong).await?, &REFUSED)?;
    for host in ground.hosts() {
        let right = ["login", "-u", User::ALICE.name, "--password-stdin", &host];
        tool.run_with_input(&right, User::ALICE.password).await?;
    }
    Ok(())
}

/// The authority's certificate is gone from where they look; what was allowed a moment ago must fail.
async fn containers_distrust(
    tool: &Tool,
    ground: &Ground,
    replica: usize,
    arguments: &[&str],
) -> Result<()> {
    let folder = ground.path(".config/containers/certs.d").join(ground.host(replica));
    fs::remove_file(folder.join("ca.crt")).context("remove the authority")?;
    said(&tool.run_to_fail(arguments).await?, &UNTRUSTED)
}
