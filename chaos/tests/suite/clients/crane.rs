//! crane.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tercet_chaos::{Layout, Tool, User};

use super::{DENIED, Ground, REFUSED, UNTRUSTED, WRONG, said};

#[tokio::test(flavor = "multi_thread")]
async fn crane_pushes_pulls_lists_and_deletes() -> Result<()> {
    let Some(crane) = Tool::find_go_built("crane")? else { return Ok(()) };
    let ground = Ground::prepare().await?;
    let images = &ground.images;
    let untrusting = crane.at_home(ground.home.path());
    let crane = untrusting.clone().with("SSL_CERT_FILE", ground.ca()?);
    let log_in = |host: String, user: User, password: &'static str| {
        let crane = crane.clone();
        async move {
            let login = ["auth", "login", "-u", user.name, "--password-stdin", &host];
            crane.run_with_input(&login, password).await
        }
    };

    ground.seed("crane/seeded", "v1", &images.busybox).await?;
    let digest = ["digest", &format!("{}/crane/seeded:v1", ground.host(0))];
    said(&crane.run_to_fail(&digest).await?, &REFUSED)?;
    // It keeps what it is given, and asks the registry only when it wants something.
    log_in(ground.host(0), User::ALICE, WRONG).await?;
    said(&crane.run_to_fail(&digest).await?, &REFUSED)?;
    for host in ground.hosts() {
        log_in(host, User::ALICE, User::ALICE.password).await?;
    }
    said(&untrusting.run_to_fail(&digest).await?, &UNTRUSTED)?;

    // crane takes a layout with a single image.
    for (name, image, kind) in [
        ("busybox", &images.busybox, "--index=false"),
        ("debian", &images.debian, "--index=false"),
        ("platforms", &images.platforms, "--index=true"),
    ] {
        let source = Layout::create(&ground.path(&format!("{name}-source")))?;
        for child in &images.per_platform {
            source.add(child)?;
        }
        source.add_tagged(image, name)?;
        let reference = |replica| format!("{}/crane/{name}:v1", ground.host(replica));
        crane.run(&["push", kind, &source.text(), &reference(0)]).await?;
        // An index of one image is pushed as that index; its only child is the image.
        let digest = crane.run(&["digest", &reference(1)]).await?.stdout.trim().to_owned();
        crane.run(&["validate", "--remote", &reference(2)]).await?;
        let back = ground.text(&format!("{name}-back"));
        crane.run(&["pull", "--format=oci", &reference(2), &back]).await?;
        let pulled = Layout::open(&ground.path(&format!("{name}-back")))?;
        let wanted: BTreeSet<String> = images.layout.verify(&image.manifest.digest)?;
        let found = pulled.verify(&digest)?;
        ensure!(found.is_superset(&wanted), "pushed {wanted:?}, pulled {found:?}");
        let copy = format!("{}/crane/{name}-copy:v1", ground.host(0));
        crane.run(&["copy", &reference(1), &copy]).await?;
        let copied = crane.run(&["digest", &copy]).await?.stdout;
        ensure!(copied.trim() == digest, "copied {copied}");

        crane.run(&["tag", &reference(2), "second"]).await?;
        let list = format!("{}/crane/{name}", ground.host(1));
        let tags = crane.run(&["ls", &list]).await?.stdout;
        ensure!(tags == "second\nv1\n", "tags {tags}");
        // A tag goes alone, a digest with all its tags.
        crane.run(&["delete", &format!("{list}:second")]).await?;
        ground.check_gone(&format!("crane/{name}"), "second").await?;
        crane.run(&["digest", &reference(2)]).await?;
        crane.run(&["delete", &format!("{list}@{digest}")]).await?;
        ground.check_gone(&format!("crane/{name}"), "v1").await?;
    }
    let catalog = crane.run(&["catalog", &ground.host(1)]).await?.stdout;
    ensure!(catalog.contains("crane/debian-copy\n"), "{catalog}");

    // Bob may look, and nothing else.
    log_in(ground.host(1), User::BOB, User::BOB.password).await?;
    let copy = format!("{}/crane/debian-copy:v1", ground.host(1));
    crane.run(&["validate", "--fast", "--remote", &copy]).await?;
    said(&crane.run_to_fail(&["tag", &copy, "bob"]).await?, &DENIED)?;
    said(&crane.run_to_fail(&["delete", &copy]).await?, &DENIED)?;
    ground.shut_down().await
}
