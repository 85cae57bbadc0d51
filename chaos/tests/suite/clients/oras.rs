//! oras: copy, attach, discover, and files as artifacts.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tercet_chaos::{Layout, RealImages, Tool, User};

use super::{Ground, REFUSED, UNTRUSTED, WRONG, said, same_content};

/// The type of what the test attaches.
const SIGNATURE: &str = "application/vnd.example.signature";

/// oras with the cluster's authority.
struct Oras<'a> {
    /// Without the authority: `copy` takes it for each side.
    bare: Tool,
    tool: Tool,
    ca: String,
    ground: &'a Ground,
}

impl Oras<'_> {
    fn at(&self, replica: usize, name: &str) -> String {
        format!("{}/oras/{name}", self.ground.host(replica))
    }

    /// The digests that refer to an image, by type.
    async fn referrers(&self, reference: &str, kind: &str) -> Result<Vec<String>> {
        let discover = ["discover", "--format", "json", "--artifact-type", kind, reference];
        let said = self.tool.run(&discover).await?.stdout;
        let tree: Value = serde_json::from_str(&said)?;
        let found = tree.pointer("/referrers").and_then(Value::as_array);
        let found = found.with_context(|| format!("no referrers: {said}"))?;
        let digest = |item: &Value| item["digest"].as_str().unwrap_or_default().to_owned();
        Ok(found.iter().map(digest).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oras_copies_attaches_discovers_and_deletes() -> Result<()> {
    let Some(tool) = Tool::find_go_built("oras")? else { return Ok(()) };
    let ground = Ground::prepare().await?;
    let images = &ground.images;
    let (bare, ca) = (tool.at_home(ground.home.path()), ground.ca()?);
    let tool = bare.clone().first(&[&format!("--ca-file={ca}")]);
    let oras = Oras { bare, tool: tool.clone(), ca, ground: &ground };

    ground.seed("oras/seeded", "v1", &images.busybox).await?;
    let tags = ["repo", "tags", &oras.at(0, "seeded")];
    let refused = [&REFUSED[..], &["credential not found"]].concat();
    said(&tool.run_to_fail(&tags).await?, &refused)?;
    let wrong = ["login", "-u", User::ALICE.name, "-p", WRONG, &ground.host(0)];
    said(&tool.run_to_fail(&wrong).await?, &REFUSED)?;
    for host in ground.hosts() {
        let login = ["login", "-u", User::ALICE.name, "--password-stdin", &host];
        tool.run_with_input(&login, User::ALICE.password).await?;
    }
    said(&oras.bare.run_to_fail(&tags).await?, &UNTRUSTED)?;

    // The artifact comes last, and brings its subject's digest with it.
    for (name, image) in [
        ("busybox", &images.busybox),
        ("debian", &images.debian),
        ("platforms", &images.platforms),
        ("bill-of-materials", &images.artifact),
    ] {
        let source = format!("{}:{name}", images.layout.text());
        let to = oras.at(0, &format!("all:{name}"));
        let push = ["copy", "--from-oci-layout", &source, "--to-ca-file", &oras.ca, &to];
        oras.bare.run(&push).await?;
        let from = oras.at(2, &format!("all:{name}"));
        let back = ground.path(name);
        let target = format!("{}:back", back.display());
        let pull = ["copy", "--from-ca-file", &oras.ca, &from, "--to-oci-layout", &target];
        oras.bare.run(&pull).await?;
        same_content(images, &Layout::open(&back)?, image).context(name)?;
    }
    let found = oras.referrers(&oras.at(1, "all:debian"), RealImages::ARTIFACT_TYPE).await?;
    ensure!(found == [images.artifact.manifest.digest.clone()], "{found:?}");

    attach(&oras).await?;

    let kind = "application/vnd.example.file";
    tool.run(&["push", "--artifact-type", kind, &oras.at(1, "file:v1"), "signature"]).await?;
    tool.run(&["pull", "-o", "pulled", &oras.at(2, "file:v1")]).await?;
    let (sent, got) = (ground.path("signature"), ground.path("pulled/signature"));
    ensure!(fs::read(sent)? == fs::read(got)?, "another file came back");

    let tags = tool.run(&["repo", "tags", &oras.at(1, "all")]).await?.stdout;
    ensure!(tags == "bill-of-materials\nbusybox\ndebian\nplatforms\n", "{tags}");
    let repositories = tool.run(&["repo", "ls", &ground.host(0)]).await?.stdout;
    ensure!(repositories.contains("oras/file\n"), "{repositories}");
    tool.run(&["manifest", "delete", "--force", &oras.at(2, "all:platforms")]).await?;
    ground.check_gone("oras/all", "platforms").await?;
    ground.check_gone("oras/all", &images.platforms.manifest.digest).await?;
    ground.shut_down().await
}

/// What is attached through one replica is found through every other, and goes along when copied.
async fn attach(oras: &Oras<'_>) -> Result<()> {
    let ground = oras.ground;
    fs::write(ground.path("signature"), "a signature")?;
    let subject = oras.at(1, "all:busybox");
    let attach = ["attach", "--format", "json", "--artifact-type", SIGNATURE];
    let attached = oras.tool.run(&[&attach[..], &[&subject, "signature"]].concat()).await?.stdout;
    let attached: Value = serde_json::from_str(&attached)?;
    let attached = attached["digest"].as_str().context("no digest")?.to_owned();
    for replica in 0..ground.cluster.len() {
        let found = oras.referrers(&oras.at(replica, "all:busybox"), SIGNATURE).await?;
        ensure!(found == [attached.clone()], "replica {replica} knows {found:?}, not {attached}");
    }
    let (from, to) = (oras.at(0, "all:busybox"), oras.at(1, "copied:busybox"));
    let trust = ["--from-ca-file", &oras.ca, "--to-ca-file", &oras.ca];
    oras.bare.run(&[&["copy", "--recursive"], &trust[..], &[&from, &to]].concat()).await?;
    let found = oras.referrers(&oras.at(2, "copied:busybox"), SIGNATURE).await?;
    ensure!(found == [attached], "{found:?}");
    let busybox = &ground.images.busybox;
    ground.check(2, "oras/copied", "busybox", busybox).await
}
