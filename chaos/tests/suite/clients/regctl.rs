//! regctl.

use std::fs;

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Layout, Tool, User};

use super::{Ground, REFUSED, UNTRUSTED, WRONG, said, same_content};

#[tokio::test(flavor = "multi_thread")]
async fn regctl_copies_attaches_lists_and_deletes() -> Result<()> {
    let Some(regctl) = Tool::find_go_built("regctl")? else { return Ok(()) };
    let ground = Ground::prepare().await?;
    let images = &ground.images;
    let regctl = regctl.at_home(ground.home.path());
    let at = |replica, name: &str| format!("{}/regctl/{name}", ground.host(replica));

    ground.seed("regctl/seeded", "v1", &images.busybox).await?;
    let tags = ["tag", "ls", &at(0, "seeded")];
    said(&regctl.run_to_fail(&tags).await?, &UNTRUSTED)?;
    let authority = fs::read_to_string(ground.ca()?)?;
    for host in ground.hosts() {
        let trust = ["registry", "set", "--skip-check", "--cacert", &authority, &host];
        regctl.run(&trust).await?;
    }
    said(&regctl.run_to_fail(&tags).await?, &REFUSED)?;
    let login = ["registry", "login", "-u", User::ALICE.name, "--pass-stdin"];
    // It keeps what it is given, also when the registry does not like it.
    let _ = regctl.run_with_input(&[&login[..], &[&ground.host(0)]].concat(), WRONG).await;
    said(&regctl.run_to_fail(&tags).await?, &REFUSED)?;
    for host in ground.hosts() {
        let login = [&login[..], &[&host]].concat();
        regctl.run_with_input(&login, User::ALICE.password).await?;
    }

    for (name, image) in
        [("busybox", &images.busybox), ("debian", &images.debian), ("platforms", &images.platforms)]
    {
        let source = format!("ocidir://{}:{name}", images.layout.text());
        let (first, second) = (format!("{name}:v1"), format!("{name}-copy:v1"));
        regctl.run(&["image", "copy", &source, &at(0, &first)]).await?;
        regctl.run(&["image", "copy", &at(1, &first), &at(2, &second)]).await?;
        let back = format!("ocidir://{}:v1", ground.text(name));
        regctl.run(&["image", "copy", &at(0, &second), &back]).await?;
        same_content(images, &Layout::open(&ground.path(name))?, image).context(name)?;
        let digest = regctl.run(&["image", "digest", &at(2, &first)]).await?.stdout;
        ensure!(digest.trim() == image.manifest.digest, "{digest}");
    }

    fs::write(ground.path("note"), "a note")?;
    let subject = at(1, "debian:v1");
    let attach = ["artifact", "put", "--artifact-type", "application/vnd.example.note"];
    regctl.run(&[&attach[..], &["--subject", &subject, "-f", "note"]].concat()).await?;
    let format = "{{range .Descriptors}}{{.ArtifactType}}{{end}}";
    let list = ["artifact", "list", "--format", format, &at(2, "debian:v1")];
    let found = regctl.run(&list).await?.stdout;
    ensure!(found.trim() == "application/vnd.example.note", "{found}");

    let tags = regctl.run(&["tag", "ls", &at(1, "platforms")]).await?.stdout;
    ensure!(tags.trim() == "v1", "{tags}");
    let repositories = regctl.run(&["repo", "ls", &ground.host(2)]).await?.stdout;
    ensure!(repositories.contains("regctl/debian-copy\n"), "{repositories}");
    // A tag goes alone, a digest with all its tags.
    regctl.run(&["tag", "delete", &at(2, "platforms:v1")]).await?;
    ground.check_gone("regctl/platforms", "v1").await?;
    let digest = &images.platforms.manifest.digest;
    ground.check(0, "regctl/platforms", digest, &images.platforms).await?;
    let by_digest = at(0, &format!("platforms-copy@{digest}"));
    regctl.run(&["manifest", "delete", &by_digest]).await?;
    ground.check_gone("regctl/platforms-copy", "v1").await?;
    ground.shut_down().await
}
