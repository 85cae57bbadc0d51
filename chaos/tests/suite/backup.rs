//! Backup, restore, the last resort, and the check of a disk: as an operator would do them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tercet_chaos::{
    Cluster, ClusterOptions, Image, Replica, Scratch, artifact_for, image_index, sha256, wait_until,
};
use tokio::process::{Child, Command};

const REPOSITORY: &str = "library/backed-up";
const OTHER: &str = "team/other";
const DEADLINE: Duration = Duration::from_secs(90);
const MIB: usize = 1 << 20;

/// A command of the program under test, with a replica's configuration.
fn tercet(cluster: &Cluster, replica: &Replica, arguments: &[&str]) -> Command {
    let mut command = Command::new(cluster.binary());
    command.args(arguments).arg("--config").arg(&replica.config);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TERCET_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

struct Ran {
    code: i32,
    text: String,
}

async fn run(cluster: &Cluster, replica: &Replica, arguments: &[&str]) -> Result<Ran> {
    let output = tercet(cluster, replica, arguments).output();
    let output = tokio::time::timeout(DEADLINE, output).await.context("the command hangs")??;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let code = output.status.code().context("the command was killed")?;
    println!("$ tercet {}\n{text}-> {code}", arguments.join(" "));
    Ok(Ran { code, text })
}

async fn succeed(cluster: &Cluster, replica: &Replica, arguments: &[&str]) -> Result<String> {
    let ran = run(cluster, replica, arguments).await?;
    ensure!(ran.code == 0, "tercet {arguments:?} ended with {}: {}", ran.code, ran.text);
    Ok(ran.text)
}

/// Everything that the tests push, by repository and reference.
#[derive(Default)]
struct Pushed(Vec<(&'static str, String, Image)>);

impl Pushed {
    async fn push(&mut self, cluster: &Cluster, seeds: std::ops::Range<u64>) -> Result<()> {
        let client = cluster.rotating_client()?;
        for seed in seeds {
            let image = Image::random(seed, &[150_000, 3_000]);
            let repository = if seed % 2 == 0 { REPOSITORY } else { OTHER };
            let tag = format!("v{seed}");
            client.push_image(repository, &tag, &image).await?;
            self.0.push((repository, tag, image));
        }
        Ok(())
    }

    /// An index of two images, and a signature of it.
    async fn push_family(&mut self, cluster: &Cluster) -> Result<()> {
        let client = cluster.rotating_client()?;
        let (amd, arm) = (Image::random(9_001, &[20_000]), Image::random(9_002, &[20_000]));
        let index = image_index(&[("amd64", &amd), ("arm64", &arm)]);
        let content = tercet_chaos::Blob::random(9_003, 500);
        let signature = artifact_for(&index, "application/vnd.example.signature", content);
        for (image, reference) in [
            (&amd, amd.manifest.digest.clone()),
            (&arm, arm.manifest.digest.clone()),
            (&index, "family".to_owned()),
            (&signature, signature.manifest.digest.clone()),
        ] {
            client.push_image(REPOSITORY, &reference, image).await?;
            self.0.push((REPOSITORY, reference, image.clone()));
        }
        let referrers = client.referrers(REPOSITORY, &index.manifest.digest).await?;
        ensure!(referrers.len() == 1, "{referrers:?}");
        Ok(())
    }

    /// Byte for byte, from every replica.
    async fn check(&self, cluster: &Cluster) -> Result<()> {
        for index in 0..cluster.len() {
            let client = cluster.client(index)?;
            for (repository, reference, image) in &self.0 {
                client.pull_image(repository, reference, image).await?;
            }
            if let Some((repository, _, family)) =
                self.0.iter().find(|(_, reference, _)| reference == "family")
            {
                let referrers = client.referrers(repository, &family.manifest.digest).await?;
                ensure!(referrers.len() == 1, "the signature is not listed: {referrers:?}");
            }
        }
        println!("{} images byte-equal on {} replicas", self.0.len(), cluster.len());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_to_a_cluster_of_three() -> Result<()> {
    let place = Scratch::new()?;
    let to = place.path().join("backups");
    let mut pushed = Pushed::default();
    let cluster = Cluster::start().await?;
    pushed.push(&cluster, 0..16).await?;
    pushed.push_family(&cluster).await?;

    // Somebody pushes on while the backup is taken; what was acknowledged before must be in it.
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let client = cluster.rotating_client()?;
    let load = tokio::spawn(async move {
        let mut count = 0_u64;
        while !*stopped.borrow_and_update() {
            let image = Image::random(50_000 + count, &[80_000]);
            client.push_image("library/load", &format!("l{count}"), &image).await?;
            count += 1;
        }
        anyhow::Ok(count)
    });
    let first = succeed(&cluster, cluster.replica(1), &["backup", "--to", text(&to)?]).await?;
    ensure!(first.contains(" 0 are here already"), "a first backup has nothing: {first}");
    let files = blob_files(&to.join("blobs"))?;
    ensure!(!files.is_empty(), "no blob in the backup");
    pushed.push(&cluster, 16..24).await?;
    let second =
        succeed(&cluster, cluster.replica(2), &["backup", "--verify", "--to", text(&to)?]).await?;
    stop.send(true)?;
    println!("{} images were pushed beside the backups", load.await??);
    let again = blob_files(&to.join("blobs"))?;
    for (path, inode) in &files {
        ensure!(again.get(path) == Some(inode), "{} was fetched twice", path.display());
    }
    ensure!(again.len() > files.len(), "the second backup brought nothing");
    ensure!(!second.contains(" 0 are here already"), "{second}");

    // A rotten file in the backup is noticed by --verify, fetched again, and only that one.
    let rotten = again.keys().next().context("a blob")?.clone();
    flip(&rotten)?;
    let third =
        succeed(&cluster, cluster.replica(0), &["backup", "--verify", "--to", text(&to)?]).await?;
    ensure!(third.contains("has rotted"), "{third}");
    let name = rotten.file_name().and_then(|name| name.to_str()).context("a name")?;
    ensure!(sha256(&fs::read(&rotten)?) == format!("sha256:{name}"), "still rotten");

    let tar = place.path().join("full.tar");
    succeed(&cluster, cluster.replica(0), &["backup", "--to", text(&tar)?]).await?;
    ensure!(tar.is_file() && !place.path().join("full.tar.parts").exists(), "no single file");
    let old = cluster.status(0).await?;
    cluster.shut_down().await?;

    for (number, from) in [to, tar].iter().enumerate() {
        let mut cluster = Cluster::prepare(ClusterOptions::default().replicas(1)).await?;
        let started = Instant::now();
        succeed(&cluster, cluster.replica(0), &["restore", "--from", text(from)?]).await?;
        println!("restored in {:?}", started.elapsed());
        succeed(&cluster, cluster.replica(0), &["fsck"]).await?;
        cluster.restart(0)?;
        cluster.wait_ready(DEADLINE).await?;
        let status = cluster.status(0).await?;
        ensure!(status.cluster_id != old.cluster_id, "it kept the cluster's id");
        ensure!(status.node_id != old.node_id, "it kept a node id");
        pushed.check(&cluster).await?;
        if number == 0 {
            for _ in 0..2 {
                let index = cluster.grow()?;
                cluster.wait_ready(DEADLINE).await?;
                cluster.wait_caught_up(index, DEADLINE).await?;
            }
            ensure!(cluster.len() == 3, "{} replicas", cluster.len());
            // Each from its own disk: the one that was restored is not asked.
            for (_, _, image) in &pushed.0 {
                for blob in &image.blobs {
                    cluster.wait_held(2, &blob.digest, DEADLINE).await?;
                }
            }
            pushed.check(&cluster).await?;
        }
        let image = Image::random(70_000, &[10_000]);
        cluster.rotating_client()?.push_image(REPOSITORY, "after", &image).await?;
        cluster.shut_down().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_and_a_killed_restore_go_on() -> Result<()> {
    let place = Scratch::new()?;
    let to = place.path().join("backups");
    let cluster = Cluster::start_with(ClusterOptions::default().replicas(1)).await?;
    let images: Vec<Image> = (0..6).map(|seed| Image::random(seed, &[24 * MIB, 8 * MIB])).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.client(0)?.push_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    let replica = cluster.replica(0);
    let mut killed = 0;
    for wanted in [1, 5] {
        let child = tercet(&cluster, replica, &["backup", "--to", text(&to)?]).spawn()?;
        killed += usize::from(kill_once(child, &to.join("blobs"), wanted).await?);
    }
    ensure!(killed > 0, "each run was done before it could be killed");
    let before = blob_files(&to.join("blobs"))?;
    ensure!(fs::read_dir(to.join("backups"))?.next().is_none() || killed < 2, "half a backup");
    let text_of = succeed(&cluster, replica, &["backup", "--to", text(&to)?]).await?;
    ensure!(!text_of.contains(" 0 are here already"), "it began anew: {text_of}");
    let after = blob_files(&to.join("blobs"))?;
    for (path, inode) in &before {
        ensure!(after.get(path) == Some(inode), "{} was fetched twice", path.display());
    }
    // The killed runs' metadata is gone, and their holds and checkpoints end with the replica.
    ensure!(
        fs::read_dir(to.join("metadata"))?.count() == fs::read_dir(to.join("backups"))?.count()
    );
    cluster.shut_down().await?;

    let mut cluster = Cluster::prepare(ClusterOptions::default().replicas(1)).await?;
    let data = cluster.replica(0).data_dir.clone();
    let arguments = ["restore", "--from", text(&to)?];
    let child = tercet(&cluster, cluster.replica(0), &arguments).spawn()?;
    if kill_once(child, &data.join("blobs"), 2).await? {
        // Half a restore is nobody's data directory: no replica starts on it, and none clears it.
        cluster.restart(0)?;
        let status = cluster.wait_exit(0, DEADLINE).await?;
        ensure!(status.code() == Some(65), "a replica started on half a restore: {status}");
        let log = cluster.replica(0).log_text();
        ensure!(log.contains("tercet restore"), "it does not say what to do: {log}");
        let before = blob_files(&data.join("blobs"))?;
        succeed(&cluster, cluster.replica(0), &arguments).await?;
        let after = blob_files(&data.join("blobs"))?;
        for (path, inode) in &before {
            ensure!(after.get(path) == Some(inode), "{} was copied twice", path.display());
        }
    } else {
        println!("the restore was done before it could be killed");
    }
    let again = run(&cluster, cluster.replica(0), &arguments).await?;
    ensure!(again.code != 0, "a restore wrote over a replica");
    cluster.restart(0)?;
    cluster.wait_ready(DEADLINE).await?;
    for (number, image) in images.iter().enumerate() {
        cluster.client(0)?.pull_image(REPOSITORY, &format!("v{number}"), image).await?;
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_surviving_disk_becomes_a_new_cluster() -> Result<()> {
    let place = Scratch::new()?;
    let mut cluster = Cluster::start().await?;
    let mut pushed = Pushed::default();
    pushed.push(&cluster, 0..12).await?;
    pushed.push_family(&cluster).await?;
    for index in 0..3 {
        cluster.wait_caught_up(index, DEADLINE).await?;
        for (_, _, image) in &pushed.0 {
            for blob in &image.blobs {
                cluster.wait_held(index, &blob.digest, DEADLINE).await?;
            }
        }
    }
    let before: Vec<_> = [cluster.status(0).await?, cluster.status(1).await?].into();
    for index in 0..3 {
        cluster.kill9(index)?;
    }
    // One of the lost disks turns up later.
    let found_later = place.path().join("found-later");
    copy_folder(&cluster.replica(0).data_dir, &found_later)?;
    cluster.wipe(0)?;
    cluster.wipe(1)?;

    let refused = run(&cluster, cluster.replica(2), &["recover"]).await?;
    ensure!(refused.code != 0, "it did not ask");
    ensure!(
        refused.text.contains("WARNING") && refused.text.contains("0 missing"),
        "{}",
        refused.text
    );
    let started = Instant::now();
    succeed(&cluster, cluster.replica(2), &["recover", "--yes"]).await?;
    println!("recovered in {:?}", started.elapsed());
    succeed(&cluster, cluster.replica(2), &["fsck"]).await?;
    cluster.restart(2)?;
    cluster.wait_ready(DEADLINE).await?;
    let alone = cluster.status(2).await?;
    ensure!(alone.cluster_id != before[0].cluster_id, "it kept the cluster's id");
    ensure!(alone.members.len() == 1, "it remembers members: {:?}", alone.members);
    for (repository, reference, image) in &pushed.0 {
        cluster.client(2)?.pull_image(repository, reference, image).await?;
    }
    // It is configured for three: one copy alone is not called durable.
    let image = Image::random(80_000, &[10_000]);
    let lonely = cluster.client(2)?.push_image(REPOSITORY, "lonely", &image).await;
    ensure!(lonely.is_err(), "a push was acknowledged with one copy");

    cluster.restart(0)?;
    cluster.restart(1)?;
    cluster.wait_ready(DEADLINE).await?;
    for index in 0..2 {
        cluster.wait_caught_up(index, DEADLINE).await?;
    }
    cluster.rotating_client()?.push_image(REPOSITORY, "together", &image).await?;
    pushed.0.push((REPOSITORY, "together".to_owned(), image));
    for index in 0..3 {
        cluster.wait_caught_up(index, DEADLINE).await?;
    }
    println!("three replicas again {:?} after the recovery began", started.elapsed());
    pushed.check(&cluster).await?;

    // The old disk comes back under its old identity, at its old address.
    cluster.kill9(0)?;
    cluster.wipe(0)?;
    copy_folder(&found_later, &cluster.replica(0).data_dir)?;
    cluster.restart(0)?;
    let push = wait_until("the old identity is refused", DEADLINE, || async {
        let log = cluster.replica(0).log_text();
        let told = log.contains(&before[0].cluster_id);
        ensure!(told, "it has not started yet");
        let answer = cluster.client(0)?.open_upload(REPOSITORY).await;
        ensure!(answer.is_err(), "a replica of the old cluster takes a push");
        Ok(())
    });
    push.await?;
    let members = cluster.status(2).await?.members;
    let known: Vec<u64> = members.iter().map(|member| member.node_id).collect();
    ensure!(!known.contains(&before[0].node_id), "the old id is a member again: {known:?}");
    ensure!(cluster.status(2).await?.cluster_id == alone.cluster_id, "another cluster");
    let _ = cluster.kill9(0);
    cluster.wipe(0)?;
    cluster.restart(0)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.wait_caught_up(0, DEADLINE).await?;
    pushed.check(&cluster).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_lost_for_ever_can_be_pushed_again() -> Result<()> {
    let mut cluster = Cluster::start_with(ClusterOptions::default().replicas(1)).await?;
    let (good, broken) = (Image::random(1, &[30_000]), Image::random(2, &[40_000]));
    cluster.client(0)?.push_image(REPOSITORY, "good", &good).await?;
    cluster.client(0)?.push_image(REPOSITORY, "broken", &broken).await?;
    let lost = broken.blobs[1].digest.clone();
    fs::remove_file(cluster.replica(0).blob_path(&lost)?)?;

    // A backup without it is a backup, and says so; so does the restore.
    let place = Scratch::new()?;
    let (to, restored) = (place.path().join("backups"), place.path().join("restored"));
    let ran = run(&cluster, cluster.replica(0), &["backup", "--to", text(&to)?]).await?;
    ensure!(ran.code == 65 && ran.text.contains(&format!("missing: {lost}")), "{}", ran.text);
    let arguments = ["restore", "--from", text(&to)?, "--data-dir", text(&restored)?];
    let told = succeed(&cluster, cluster.replica(0), &arguments).await?;
    ensure!(told.contains("1 lost") && told.contains("library/backed-up:broken"), "{told}");

    cluster.kill9(0)?;
    let arguments = ["recover", "--yes", "--forget-lost-blobs"];
    let told = succeed(&cluster, cluster.replica(0), &arguments).await?;
    ensure!(told.contains("1 missing") && told.contains("library/backed-up:broken"), "{told}");
    cluster.restart(0)?;
    cluster.wait_ready(DEADLINE).await?;
    let client = cluster.client(0)?;
    client.pull_image(REPOSITORY, "good", &good).await?;
    // A client asks before it uploads: the answer must be no.
    let path = format!("/v2/{REPOSITORY}/blobs/{}", broken.blobs[1].digest);
    client.head(&path).await?.expect(404)?;
    client.push_image(REPOSITORY, "broken", &broken).await?;
    client.pull_image(REPOSITORY, "broken", &broken).await?;
    cluster.kill9(0)?;
    succeed(&cluster, cluster.replica(0), &["fsck"]).await?;
    cluster.restart(0)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_finds_what_is_wrong_and_changes_nothing_unasked() -> Result<()> {
    let mut cluster = Cluster::start_with(ClusterOptions::default().replicas(1)).await?;
    let mut pushed = Pushed::default();
    pushed.push(&cluster, 0..6).await?;
    pushed.push_family(&cluster).await?;
    let running = run(&cluster, cluster.replica(0), &["fsck"]).await?;
    ensure!(running.code == 69, "it looked at a running replica: {}", running.code);
    cluster.kill9(0)?;
    let data = cluster.replica(0).data_dir.clone();
    let before = contents(&data)?;
    let clean = succeed(&cluster, cluster.replica(0), &["fsck"]).await?;
    ensure!(clean.contains("clean"), "{clean}");
    ensure!(contents(&data)? == before, "a look has changed the directory");

    // One bit of one blob.
    let victim = &pushed.0[0].2.blobs[1];
    flip(&cluster.replica(0).blob_path(&victim.digest)?)?;
    let found = run(&cluster, cluster.replica(0), &["fsck"]).await?;
    ensure!(found.code == 65, "ended with {}", found.code);
    ensure!(found.text.contains(&victim.digest) && found.text.contains("DAMAGE"), "{}", found.text);
    ensure!(found.text.contains("library/backed-up:v0"), "no image is named: {}", found.text);
    let repaired = run(&cluster, cluster.replica(0), &["fsck", "--repair"]).await?;
    ensure!(repaired.text.contains("is in quarantine"), "{}", repaired.text);
    let held = fs::read_dir(data.join("quarantine"))?.count();
    ensure!(held == 2, "evidence and its reason: {held} files");
    let missing = run(&cluster, cluster.replica(0), &["fsck", "--json"]).await?;
    let json = missing.text.lines().take_while(|line| !line.starts_with("tercet:"));
    let json: serde_json::Value = serde_json::from_str(&json.collect::<Vec<_>>().join("\n"))?;
    let first = json.pointer("/findings/0/severity").and_then(|value| value.as_str());
    ensure!(missing.code == 65 && first == Some("missing"), "{}", missing.text);
    // Back in its place, so that only what follows is found.
    fs::write(cluster.replica(0).blob_path(&victim.digest)?, &victim.bytes)?;
    succeed(&cluster, cluster.replica(0), &["fsck"]).await?;

    for part in ["log", "state"] {
        let kept = data.with_extension("kept");
        copy_folder(&data, &kept)?;
        let file = largest(&data.join(part))?;
        let mut bytes = fs::read(&file)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        fs::write(&file, bytes)?;
        let found = run(&cluster, cluster.replica(0), &["fsck"]).await?;
        ensure!(found.code == 65, "damage of {} was not noticed", file.display());
        ensure!(found.text.contains(&format!("DAMAGE  {part}")), "{}", found.text);
        fs::remove_dir_all(&data)?;
        fs::rename(&kept, &data)?;
    }
    cluster.restart(0)?;
    cluster.wait_ready(DEADLINE).await?;
    pushed.check(&cluster).await?;
    cluster.shut_down().await
}

/// Kills a command once there are so many blobs; says whether it still ran.
async fn kill_once(mut child: Child, blobs: &Path, wanted: usize) -> Result<bool> {
    wait_until("some blobs are there", DEADLINE, || async {
        ensure!(blob_files(blobs)?.len() >= wanted, "not yet");
        Ok(())
    })
    .await?;
    let ran = child.try_wait()?.is_none();
    child.start_kill()?;
    child.wait().await?;
    Ok(ran)
}

/// The files below a folder of blobs, each with its inode: a file that was written again has another.
fn blob_files(folder: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => open.push(path),
                Ok(metadata) => {
                    found.insert(path, metadata.ino());
                }
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

/// Every file of a folder but the lock, by content.
fn contents(folder: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    for path in blob_files(folder)?.into_keys() {
        if path.file_name().is_some_and(|name| name != "lock") {
            let digest = sha256(&fs::read(&path)?);
            found.insert(path, digest);
        }
    }
    Ok(found)
}

/// The largest file that holds data of a database.
fn largest(folder: &Path) -> Result<PathBuf> {
    let data = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "sst" || extension == "log")
    };
    let files = blob_files(folder)?.into_keys().filter(data);
    let sized = files.map(|path| Ok((fs::metadata(&path)?.len(), path)));
    let sized = sized.collect::<Result<Vec<_>>>()?;
    Ok(sized.into_iter().max().context("no data file")?.1)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for path in blob_files(from)?.into_keys() {
        let target = to.join(path.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("a parent")?)?;
        fs::copy(&path, &target)?;
    }
    Ok(())
}

fn flip(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("an empty file")? ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}
