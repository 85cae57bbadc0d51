//! helm: charts in the registry.

use std::fs;

use anyhow::{Result, ensure};
use tercet_chaos::{Tool, User};

use super::{Ground, REFUSED, UNTRUSTED, WRONG, said};

#[tokio::test(flavor = "multi_thread")]
async fn helm_pushes_and_pulls_charts() -> Result<()> {
    let Some(helm) = Tool::find_go_built("helm")? else { return Ok(()) };
    let ground = Ground::prepare().await?;
    let bare = helm.at_home(ground.home.path());
    let helm = bare.clone().first(&[&format!("--ca-file={}", ground.ca()?)]);
    let at = |replica, name: &str| format!("oci://{}/charts{name}", ground.host(replica));
    bare.run(&["create", "shop"]).await?;
    // A version with a plus sign, which no tag may have: helm writes an underscore.
    let versions = ["0.1.0", "0.2.0+build.7"];
    for version in versions {
        bare.run(&["package", "shop", "--version", version]).await?;
    }
    let package = |version: &str| format!("shop-{version}.tgz");

    let push = ["push", &package("0.1.0"), &at(0, "")];
    let refused = [&REFUSED[..], &["credential not found"]].concat();
    said(&helm.run_to_fail(&push).await?, &refused)?;
    let wrong = ["registry", "login", "-u", User::ALICE.name, "-p", WRONG, &ground.host(0)];
    said(&helm.run_to_fail(&wrong).await?, &REFUSED)?;
    for host in ground.hosts() {
        let login = ["registry", "login", "-u", User::ALICE.name, "--password-stdin", &host];
        helm.run_with_input(&login, User::ALICE.password).await?;
    }
    said(&bare.run_to_fail(&push).await?, &UNTRUSTED)?;

    fs::create_dir(ground.path("back"))?;
    for version in versions {
        helm.run(&["push", &package(version), &at(0, "")]).await?;
        helm.run(&["pull", &at(1, "/shop"), "--version", version, "-d", "back"]).await?;
        let sent = fs::read(ground.path(&package(version)))?;
        let got = fs::read(ground.path("back").join(package(version)))?;
        ensure!(sent == got, "{version} is another chart");
    }
    // Without a version helm lists the tags, and takes the newest.
    let newest = helm.run(&["show", "chart", &at(2, "/shop")]).await?.stdout;
    ensure!(newest.contains("version: 0.2.0+build.7"), "{newest}");
    let tags = ground.cluster.client(1)?.tags("charts/shop").await?;
    ensure!(tags == ["0.1.0", "0.2.0_build.7"], "{tags:?}");
    ground.shut_down().await
}
