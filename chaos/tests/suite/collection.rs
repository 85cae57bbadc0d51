//! What nothing needs goes from every replica, and nothing else ever does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::Value;
use tercet_chaos::{
    Answer, Blob, Cluster, ClusterOptions, Image, RegistryClient, Target, Upload, wait_until,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A grace of two seconds, a round every second, and nothing is young for longer than three.
fn hasty() -> ClusterOptions {
    ClusterOptions::default()
        .setting("gc", "grace_seconds", "2")
        .setting("gc", "interval_seconds", "1")
        .setting("gc", "orphan_grace_seconds", "3")
}

/// A cluster in which every member has said that it can collect: until then nobody does.
async fn start(options: ClusterOptions) -> Result<Cluster> {
    let cluster = Cluster::start_with(options).await?;
    wait_until("the cluster's feature level is 2", DEADLINE, || async {
        for index in 0..cluster.len() {
            let level = cluster.status(index).await?.feature_level;
            ensure!(level >= 2, "replica {index} says {level}");
        }
        Ok(())
    })
    .await?;
    Ok(cluster)
}

/// The blob files of a replica, as paths below its folder of blobs.
fn expected(cluster: &Cluster, blobs: &[&Blob]) -> Result<BTreeSet<PathBuf>> {
    let root = cluster.replica(0).data_dir.join("blobs");
    blobs
        .iter()
        .map(|blob| Ok(cluster.replica(0).blob_path(&blob.digest)?.strip_prefix(&root)?.to_owned()))
        .collect()
}

/// Waits until every replica has exactly these blobs on its disk. Looks at files only: to ask for a blob
/// would keep it.
async fn wait_for_exactly(cluster: &Cluster, blobs: &[&Blob], what: &str) -> Result<()> {
    let wanted = expected(cluster, blobs)?;
    wait_until(what, DEADLINE, || async {
        for index in 0..cluster.len() {
            let found = cluster.files(index, "blobs")?.paths;
            let dead: Vec<_> = found.difference(&wanted).collect();
            let lost: Vec<_> = wanted.difference(&found).collect();
            ensure!(dead.is_empty(), "replica {index} still has {dead:?}");
            ensure!(lost.is_empty(), "replica {index} lacks {lost:?}");
        }
        Ok(())
    })
    .await
}

fn blobs_of<'a>(images: &[&'a Image]) -> Vec<&'a Blob> {
    images.iter().flat_map(|image| &image.blobs).collect()
}

async fn catalogue(client: &RegistryClient) -> Result<Vec<String>> {
    let answer = client.get("/v2/_catalog?n=1000").await?.expect(200)?;
    let json = answer.json()?;
    let names = json.pointer("/repositories").and_then(Value::as_array).context("no list")?;
    names.iter().map(|name| Ok(name.as_str().context("no name")?.to_owned())).collect()
}

async fn head(client: &RegistryClient, repository: &str, blob: &Blob) -> Result<Answer> {
    client.head(&format!("/v2/{repository}/blobs/{}", blob.digest)).await
}

async fn delete_manifest(
    client: &RegistryClient,
    repository: &str,
    image: &Image,
) -> Result<Answer> {
    client.delete(&format!("/v2/{repository}/manifests/{}", image.manifest.digest)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_names_goes_from_every_replica_and_what_an_image_names_stays() -> Result<()> {
    let cluster = start(hasty()).await?;
    let client = cluster.rotating_client()?;
    let image = Image::random(1, &[200_000, 70_000]);
    client.push_image("gc/kept", "v1", &image).await?;
    let loose: Vec<Blob> = (0..5).map(|seed| Blob::random(1_000 + seed, 300_000)).collect();
    for blob in &loose {
        client.push_blob("gc/loose", blob).await?;
    }
    wait_for_exactly(&cluster, &blobs_of(&[&image]), "five blobs that nothing names are gone")
        .await?;
    for index in 0..cluster.len() {
        let client = cluster.client(index)?;
        for blob in &loose {
            head(&client, "gc/loose", blob).await?.expect(404)?;
        }
        client.pull_image("gc/kept", "v1", &image).await?;
    }
    wait_until("the empty repository is gone from the catalogue", DEADLINE, || async {
        let names = catalogue(&client).await?;
        ensure!(names == ["gc/kept"], "{names:?}");
        Ok(())
    })
    .await?;
    // What was collected can be pushed again, by those who thought that it was there as well.
    let again = Image::of_layers(2, loose.clone());
    client.push_image("gc/loose", "v1", &again).await?;
    client.pull_image("gc/loose", "v1", &again).await?;
    wait_for_exactly(&cluster, &blobs_of(&[&image, &again]), "both images are everywhere").await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_images_layers_go_and_a_shared_one_stays() -> Result<()> {
    let cluster = start(hasty()).await?;
    let client = cluster.rotating_client()?;
    let base = Blob::random(7, 400_000);
    let one = Image::of_layers(1, vec![base.clone(), Blob::random(8, 100_000)]);
    let two = Image::of_layers(2, vec![base.clone(), Blob::random(9, 100_000)]);
    client.push_image("gc/one", "v1", &one).await?;
    client.push_image("gc/two", "v1", &two).await?;
    delete_manifest(&client, "gc/one", &one).await?.expect(202)?;
    wait_for_exactly(&cluster, &blobs_of(&[&two]), "the deleted image's own blobs are gone")
        .await?;
    client.pull_image("gc/two", "v1", &two).await?;
    // The shared layer is linked in gc/one still; that keeps neither it nor the repository.
    wait_until("the emptied repository is forgotten", DEADLINE, || async {
        let names = catalogue(&client).await?;
        ensure!(names == ["gc/two"], "{names:?}");
        Ok(())
    })
    .await?;
    head(&client, "gc/one", &base).await?.expect(404)?;
    client.push_image("gc/one", "v2", &one).await?;
    delete_manifest(&client, "gc/two", &two).await?.expect(202)?;
    wait_for_exactly(&cluster, &blobs_of(&[&one]), "now the other one's are").await?;
    client.pull_image("gc/one", "v2", &one).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_asks_for_an_unreferenced_blob_keeps_it() -> Result<()> {
    let cluster = start(hasty()).await?;
    let client = cluster.rotating_client()?;
    let asked_for = Blob::random(1, 50_000);
    client.push_blob("gc/asked", &asked_for).await?;
    // Three generations of blobs that nobody asks for come and go meanwhile.
    for generation in 0..3 {
        let clock = Blob::random(100 + generation, 10_000);
        client.push_blob("gc/clock", &clock).await?;
        let files: Vec<PathBuf> = (0..cluster.len())
            .map(|index| cluster.replica(index).blob_path(&clock.digest))
            .collect::<Result<_>>()?;
        wait_until("a blob that nobody asks for is gone", DEADLINE, || async {
            head(&client, "gc/asked", &asked_for).await?.expect(200)?;
            ensure!(files.iter().all(|file| !file.exists()), "it is still there");
            Ok(())
        })
        .await?;
    }
    // It is there because it was asked for, not because nothing works.
    wait_for_exactly(&cluster, &[], "and goes when nobody asks any more").await?;
    head(&client, "gc/asked", &asked_for).await?.expect(404)?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_an_existence_check_still_answers() -> Result<()> {
    let mut cluster = start(hasty().setting("gc", "interval_seconds", "1000")).await?;
    let blob = Blob::random(1, 50_000);
    cluster.client(0)?.push_blob("gc/lonely", &blob).await?;
    for index in [1, 2] {
        cluster.wait_held(index, &blob.digest, DEADLINE).await?;
    }
    cluster.kill9(1)?;
    cluster.kill9(2)?;
    let client = cluster.client(0)?;
    // From the first moment, when the replica does not know yet that it is alone, to when it does.
    wait_until("answers are stale", DEADLINE, || async {
        let answer = head(&client, "gc/lonely", &blob).await?.expect(200)?;
        ensure!(answer.is_stale(), "not marked");
        Ok(())
    })
    .await?;
    client.pull_blob("gc/lonely", &blob.digest).await?;
    cluster.restart(1)?;
    cluster.restart(2)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_would_go_and_can_have_it_go_now() -> Result<()> {
    // No round by itself in the time of this test, apart from the first after an election.
    let cluster = start(hasty().setting("gc", "interval_seconds", "1000").setting(
        "gc",
        "grace_seconds",
        "15",
    ))
    .await?;
    let client = cluster.rotating_client()?;
    let loose = Blob::random(1, 50_000);
    let image = Image::random(2, &[10_000]);
    client.push_blob("gc/loose", &loose).await?;
    client.push_image("gc/kept", "v1", &image).await?;
    let waiting = cluster.operate(1, &["gc", "--dry-run"]).await?.stdout;
    ensure!(waiting.contains("0 blobs would go"), "{waiting}");
    ensure!(waiting.contains("1 more have no reference"), "{waiting}");
    let early = cluster.operate(2, &["gc", "--now", "--json"]).await?.stdout;
    let early: Value = serde_json::from_str(&early)?;
    ensure!(early["collected"] == 0, "--now takes nothing whose grace is not over: {early}");
    let listed = wait_until("its grace is over", DEADLINE, || async {
        let listed = cluster.operate(0, &["gc", "--dry-run", "--json"]).await?.stdout;
        let listed: Value = serde_json::from_str(&listed)?;
        ensure!(listed["blobs"].as_array().is_some_and(|blobs| blobs.len() == 1), "{listed}");
        Ok(listed)
    })
    .await?;
    let blob = &listed["blobs"][0];
    ensure!(blob["digest"] == loose.digest.as_str() && blob["size"] == 50_000, "{listed}");
    ensure!(blob["repositories"][0] == "gc/loose" && listed["bytes"] == 50_000, "{listed}");
    ensure!(cluster.files(0, "blobs")?.paths.len() == 3, "a dry run removes nothing");
    let done = cluster.operate(1, &["gc", "--now"]).await?.stdout;
    ensure!(done.contains("collected 1 blobs (48.8 KiB)"), "{done}");
    wait_for_exactly(&cluster, &blobs_of(&[&image]), "the blob's files are gone").await?;
    let status = cluster.operate(2, &["gc", "status"]).await?.stdout;
    ensure!(status.contains("garbage collection is on: grace 15 s"), "{status}");
    ensure!(status.contains("collected 1 blobs"), "{status}");
    let refused = cluster.command().run_to_fail(&["gc"]).await?;
    ensure!(refused.contains("--dry-run"), "{refused}");
    cluster.shut_down().await
}

/// What a crash between the collection and the removal of the file leaves, and what a push leaves that
/// never came to its end: a file that no record knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_crash_left_behind_does_not_stay() -> Result<()> {
    let mut cluster = start(hasty()).await?;
    let client = cluster.client(0)?;
    let image = Image::random(1, &[100_000]);
    client.push_image("gc/kept", "v1", &image).await?;
    let loose = Blob::random(2, 100_000);
    client.push_blob("gc/loose", &loose).await?;
    for index in 0..3 {
        cluster.wait_held(index, &loose.digest, DEADLINE).await?;
    }
    let file = cluster.replica(2).blob_path(&loose.digest)?;
    // Replica 2 is gone while the others collect: it applies the collection when it is back.
    cluster.kill9(2)?;
    for index in [0, 1] {
        let file = cluster.replica(index).blob_path(&loose.digest)?;
        wait_until("the others have collected the blob", DEADLINE, || async {
            ensure!(!file.exists(), "{} is there", file.display());
            Ok(())
        })
        .await?;
    }
    ensure!(file.exists(), "nobody removes files of a replica that does not run");
    cluster.restart(2)?;
    wait_until("the replica that was away removes its copy", DEADLINE, || async {
        ensure!(!file.exists(), "it is there");
        Ok(())
    })
    .await?;
    // As if it had died between the two: applied, and the file still there.
    cluster.kill9(2)?;
    let never_committed = Blob::random(3, 5_000);
    for blob in [&loose, &never_committed] {
        let path = cluster.replica(2).blob_path(&blob.digest)?;
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, &blob.bytes)?;
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path)?.set_modified(hour_ago)?;
    }
    cluster.restart(2)?;
    wait_for_exactly(&cluster, &blobs_of(&[&image]), "what no record knows is gone").await?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.client(2)?.pull_image("gc/kept", "v1", &image).await?;
    cluster.shut_down().await
}

/// Trap 2 of the design, from outside: files whose age lies nowhere but in the push. All copies are made
/// to look a day old between publish and collection, again and again, while they are pushed.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_what_is_being_collected_is_never_lost() -> Result<()> {
    let cluster = start(hasty().setting("gc", "grace_seconds", "1")).await?;
    let client = cluster.rotating_client()?;
    for round in 0..12 {
        // The same content every time: each push races with the collection of the last one.
        let layer = Blob::random(1, 150_000);
        let image = Image::of_layers(round, vec![layer.clone()]);
        let repository = "gc/raced";
        push_patiently(&client, repository, "v", &image, &[]).await?;
        for index in 0..cluster.len() {
            let client = cluster.client(index)?;
            client.pull_image(repository, "v", &image).await?;
        }
        delete_manifest(&client, repository, &image).await?.expect(202)?;
        if round % 2 == 1 {
            // Half of the time it is gone when the next push begins; else it is about to.
            wait_for_exactly(&cluster, &[], "all of it is gone").await?;
        } else {
            for index in 0..cluster.len() {
                let path = cluster.replica(index).blob_path(&layer.digest)?;
                if let Ok(file) = fs::File::open(&path) {
                    file.set_modified(SystemTime::now() - Duration::from_secs(86_400))?;
                }
            }
        }
    }
    wait_for_exactly(&cluster, &[], "all of it is gone").await?;
    cluster.shut_down().await
}

/// As a client does: looks what is there, mounts or uploads the rest, pushes the manifest, and begins anew
/// when something has gone meanwhile or a replica does not answer.
async fn push_patiently(
    client: &RegistryClient,
    repository: &str,
    tag: &str,
    image: &Image,
    sources: &[String],
) -> Result<()> {
    wait_until(&format!("push of {repository}:{tag}"), DEADLINE, || async {
        for (number, blob) in image.blobs.iter().enumerate() {
            if head(client, repository, blob).await?.status == 200 {
                continue;
            }
            if let Some(source) = sources.get(number % sources.len().max(1)) {
                let path =
                    format!("/v2/{repository}/blobs/uploads/?mount={}&from={source}", blob.digest);
                let answer = client.call(Method::POST, &path).await?;
                if answer.status == 201 {
                    continue;
                }
                // No mount, but a session. One that is left open counts until it expires.
                let location = answer.expect(202)?.need_header("location")?.to_owned();
                let upload = Upload { location, offset: 0 };
                client.finish(&upload, &blob.digest, blob.bytes.clone()).await?.expect(201)?;
                continue;
            }
            client.push_blob(repository, blob).await?;
        }
        client.push_manifest(repository, tag, image).await
    })
    .await
}

/// One client of the storm: what it pushed and was told is stored.
struct Storm {
    random: StdRng,
    client: RegistryClient,
    own: String,
    all: Vec<String>,
    pool: Vec<Blob>,
    acked: BTreeMap<String, Image>,
    /// Every manifest that was ever sent.
    sent: BTreeMap<String, Image>,
    pushes: usize,
    pulls: usize,
    deletes: usize,
}

impl Storm {
    async fn run(mut self, until: tokio::time::Instant) -> Result<Self> {
        let mut number = 0;
        while tokio::time::Instant::now() < until {
            match self.random.random_range(0..10) {
                0..5 => {
                    number += 1;
                    self.push(number).await?;
                }
                5..8 => self.delete().await?,
                _ => self.pull().await?,
            }
        }
        Ok(self)
    }

    async fn push(&mut self, number: u64) -> Result<()> {
        let layers: BTreeSet<usize> =
            (0..3).map(|_| self.random.random_range(0..self.pool.len())).collect();
        let layers = layers.into_iter().map(|at| self.pool[at].clone()).collect();
        let image = Image::of_layers(self.random.random_range(0..20), layers);
        let tag = format!("t{}", number % 6);
        let sources = self.all.clone();
        self.sent.insert(image.manifest.digest.clone(), image.clone());
        push_patiently(&self.client, &self.own, &tag, &image, &sources).await?;
        self.pushes += 1;
        self.acked.insert(tag, image);
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let Some(at) = self.choose() else { return Ok(()) };
        let Some(image) = self.acked.remove(&at) else { return Ok(()) };
        // The manifest goes with every tag of it.
        self.acked.retain(|_, other| other.manifest.digest != image.manifest.digest);
        wait_until("a deletion", DEADLINE, || async {
            match delete_manifest(&self.client, &self.own, &image).await?.status {
                202 | 404 => Ok(()),
                status => bail!("{status}"),
            }
        })
        .await?;
        self.deletes += 1;
        Ok(())
    }

    async fn pull(&mut self) -> Result<()> {
        let Some(at) = self.choose() else { return Ok(()) };
        let image = &self.acked[&at];
        wait_until(&format!("pull of {}:{at}", self.own), DEADLINE, || async {
            match self.client.pull_image(&self.own, &at, image).await {
                Ok(_) => Ok(()),
                // A leader that is being elected is no loss; what does not come back by the deadline is.
                Err(error) => Err(anyhow!("{error:#}")),
            }
        })
        .await?;
        self.pulls += 1;
        Ok(())
    }

    fn choose(&mut self) -> Option<String> {
        let at = self.random.random_range(0..self.acked.len().max(1));
        self.acked.keys().nth(at).cloned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_pushes_mounts_deletes_and_collections_loses_nothing_and_leaves_nothing()
-> Result<()> {
    let seed: u64 =
        std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4);
    let seconds: u64 =
        std::env::var("CHAOS_SECONDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(25);
    let mut cluster = start(hasty().setting("gc", "grace_seconds", "1")).await?;
    let all: Vec<String> = (0..4).map(|n| format!("storm/{n}")).collect();
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let urls = vec![cluster.registry_url(0), cluster.registry_url(1)];
    let mut storms = tokio::task::JoinSet::new();
    for (own, number) in all.iter().zip(0_u64..) {
        let storm = Storm {
            random: StdRng::seed_from_u64(seed.wrapping_mul(31) + number),
            client: RegistryClient::new(urls.clone(), Target::NextEachTime)?,
            own: own.clone(),
            all: all.clone(),
            pool: (0..10)
                .map(|at| Blob::random(50_000 + at, 20_000 + 9_000 * at as usize))
                .collect(),
            acked: BTreeMap::new(),
            sent: BTreeMap::new(),
            pushes: 0,
            pulls: 0,
            deletes: 0,
        };
        storms.spawn(storm.run(until));
    }
    // One replica dies and comes back all the while, which may take the leadership with it.
    let mut kills = 0;
    while tokio::time::Instant::now() + Duration::from_secs(6) < until {
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.kill9(2)?;
        kills += 1;
        cluster.restart(2)?;
        cluster.wait_ready(DEADLINE).await?;
    }
    let mut images: Vec<(String, String, Image)> = Vec::new();
    let mut pushed: Vec<(String, Image)> = Vec::new();
    let (mut pushes, mut pulls, mut deletes) = (0, 0, 0);
    while let Some(storm) = storms.join_next().await {
        let storm = storm??;
        (pushes, pulls, deletes) =
            (pushes + storm.pushes, pulls + storm.pulls, deletes + storm.deletes);
        let own = storm.own;
        pushed.extend(storm.sent.into_values().map(|image| (own.clone(), image)));
        images.extend(storm.acked.into_iter().map(|(tag, image)| (own.clone(), tag, image)));
    }
    for index in 0..cluster.len() {
        let client = cluster.client(index)?;
        for (repository, tag, image) in &images {
            let pulled = client.pull_image(repository, tag, image).await;
            pulled.with_context(|| format!("seed {seed}: acknowledged and lost"))?;
        }
    }
    eprintln!(
        "seed {seed}: {pushes} pushes, {pulls} pulls, {deletes} deletions, {kills} kills; {} tags checked on 3 replicas",
        images.len()
    );
    ensure!(pushes > 10 && deletes > 3 && kills > 0, "void: too little happened");
    // Nothing is needed any more, so nothing may stay: also manifests that lost their tag to another, and
    // those of a push whose answer was lost.
    let client = cluster.client(0)?;
    for (repository, image) in &pushed {
        let answer = delete_manifest(&client, repository, image).await?;
        ensure!([202, 404].contains(&answer.status), "{}", answer.describe());
    }
    wait_for_exactly(&cluster, &[], &format!("seed {seed}: every dead blob is gone")).await?;
    wait_until("every repository is gone", DEADLINE, || async {
        let names = catalogue(&client).await?;
        ensure!(names.is_empty(), "seed {seed}: {names:?}");
        Ok(())
    })
    .await?;
    for index in 0..cluster.len() {
        cluster.wait_caught_up(index, DEADLINE).await?;
    }
    cluster.shut_down().await
}
