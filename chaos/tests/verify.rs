//! `tercet-chaos verify` against real clusters: it holds while they are well or lose a replica, remembers from run to
//! run, and names what is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{Cluster, RegistryClient, User, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
/// Seconds that each pull from a replica is given which will not give it.
const SHORT: &str = "8";

/// Calls the program. Returns its exit code and what it said.
fn verify(cluster: &Cluster, ledger: &Path, more: &[&str]) -> Result<(i32, String)> {
    // Where everything is there, nothing waits so long but a cluster that is electing.
    verify_within("30", cluster, ledger, more)
}

/// The same, where something is not there, and each pull of it is given so many seconds.
fn verify_within(
    patience: &str,
    cluster: &Cluster,
    ledger: &Path,
    more: &[&str],
) -> Result<(i32, String)> {
    let targets: Vec<String> =
        (0..cluster.len()).map(|index| cluster.registry_url(index)).collect();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tercet-chaos"))
        .args(["verify", "--target", &targets.join(","), "--ledger"])
        .arg(ledger)
        .args(["--seconds", "4", "--rate", "40", "--patience", patience])
        .args(more)
        .output()
        .context("start tercet-chaos")?;
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    println!("{text}");
    Ok((status.code().context("it ends by itself")?, text))
}

/// The images that the ledger keeps: repository, manifest, blobs.
fn kept(ledger: &Path) -> Result<Vec<(String, String, Vec<String>)>> {
    let text = fs::read_to_string(ledger.join("ledger.log"))?;
    let mut images = Vec::new();
    for line in text.lines() {
        let (_, json) = line.split_once(' ').context("a line has a checksum")?;
        let json: serde_json::Value = serde_json::from_str(json)?;
        if json["what"] == "image" {
            let text = |name: &str| json[name].as_str().map(str::to_owned).context("text");
            let blobs = json["blobs"].as_array().context("a list")?;
            let blobs = blobs.iter().filter_map(|blob| Some(blob.as_str()?.to_owned())).collect();
            images.push((text("repository")?, text("manifest")?, blobs));
        }
    }
    ensure!(!images.is_empty(), "nothing is kept: {text}");
    Ok(images)
}

async fn delete(client: &RegistryClient, repository: &str, manifest: &str) -> Result<()> {
    client.delete(&format!("/v2/{repository}/manifests/{manifest}")).await?.expect(202)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_remembers_and_names_what_is_lost() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let folder = tempfile::tempdir()?;
    let ledger = folder.path().join("ledger");
    let (code, said) = verify(&cluster, &ledger, &["--check-only"])?;
    ensure!(code == 2 && said.contains("nothing was kept before"), "{code}");

    let report = folder.path().join("report");
    let (code, _) = verify(&cluster, &ledger, &["--report", &report.display().to_string()])?;
    ensure!(code == 0, "{code}");
    let mut kinds: Vec<String> = fs::read_dir(&report)?
        .filter_map(|entry| Some(entry.ok()?.path().extension()?.to_str()?.to_owned()))
        .collect();
    kinds.sort();
    kinds.dedup();
    ensure!(kinds == ["html", "json", "xml"], "{kinds:?}");
    let first = kept(&ledger)?.len();

    // Again, with what the first run has kept; strictly, since all are there.
    let (code, said) = verify(&cluster, &ledger, &["--strict"])?;
    ensure!(
        code == 0 && said.contains(&format!("1 earlier runs have kept {first} images")),
        "{code}"
    );

    // One that is down is not missed, unless it is asked for.
    cluster.kill9(2)?;
    // It may have been the leader.
    wait_until("somebody else leads", DEADLINE, || async {
        let leader = cluster.leader().await?;
        ensure!(leader != 2, "they still wait for the one that is gone");
        Ok(())
    })
    .await?;
    let (code, _) = verify_within(SHORT, &cluster, &ledger, &[])?;
    ensure!(code == 0, "{code}");
    let (code, said) = verify_within(SHORT, &cluster, &ledger, &["--check-only", "--strict"])?;
    ensure!(code == 2 && said.contains("did not answer for"), "{code}");
    cluster.restart(2)?;
    cluster.wait_caught_up(2, DEADLINE).await?;

    // A check alone leaves the ledger as it is.
    let before = fs::read(ledger.join("ledger.log"))?;
    let (code, _) = verify(&cluster, &ledger, &["--check-only"])?;
    ensure!(code == 0 && fs::read(ledger.join("ledger.log"))? == before, "{code}");

    // Another ledger on the same cluster is none of its business, and the reverse.
    let other = folder.path().join("other");
    let (code, _) = verify(&cluster, &other, &[])?;
    ensure!(code == 0, "{code}");
    let (code, _) = verify(&cluster, &ledger, &["--strict"])?;
    ensure!(code == 0, "{code}");

    // What is pruned is not missed.
    let (code, _) = verify(&cluster, &ledger, &["--prune"])?;
    ensure!(code == 0, "{code}");
    let (code, _) = verify(&cluster, &ledger, &["--check-only"])?;
    ensure!(code == 0, "{code}");

    // A manifest goes behind its back.
    let images = kept(&ledger)?;
    let (repository, manifest, _) = images.last().context("an image")?;
    delete(&cluster.client(0)?, repository, manifest).await?;
    let (code, said) = verify(&cluster, &ledger, &["--check-only"])?;
    ensure!(code == 1 && said.contains("has lost") && said.contains(manifest), "{code}");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_no_disk_has_any_more_is_named() -> Result<()> {
    let cluster = Cluster::start().await?;
    let folder = tempfile::tempdir()?;
    let (code, _) = verify(&cluster, folder.path(), &[])?;
    ensure!(code == 0, "{code}");
    let images = kept(folder.path())?;
    let blob = images.iter().flat_map(|(_, _, blobs)| blobs).max().context("a blob")?;
    for index in 0..cluster.len() {
        fs::remove_file(cluster.replica(index).blob_path(blob)?)?;
    }
    let (code, said) = verify_within(SHORT, &cluster, folder.path(), &["--check-only"])?;
    ensure!(code == 1 && said.contains(blob.as_str()), "{code}");
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_logs_in_and_believes_a_private_authority() -> Result<()> {
    let cluster = Cluster::secured().await?;
    let folder = tempfile::tempdir()?;
    let ledger = folder.path().join("ledger");
    let password = folder.path().join("password");
    fs::write(&password, format!("{}\n", User::ALICE.password))?;
    let password = password.display().to_string();
    let authority = cluster.authority()?.certificate_text();
    let login = ["--user", User::ALICE.name, "--password-file", &password, "--ca", &authority];
    let (code, _) = verify(&cluster, &ledger, &login)?;
    ensure!(code == 0, "{code}");
    let (code, _) = verify(&cluster, &ledger, &login)?;
    ensure!(code == 0, "{code}");
    // Without a login it says what is wrong, and judges nothing.
    let (code, said) = verify(&cluster, &ledger, &["--ca", &authority])?;
    ensure!(code == 70 && said.contains("wants another login"), "{code}");
    // Nobody answers whom it does not believe.
    let (code, _) = verify_within(SHORT, &cluster, &ledger, &login[..4])?;
    ensure!(code == 2, "{code}");
    cluster.shut_down().await
}
