//! Rules let go of tags and manifests; then collection gives the space back. Nothing else goes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tercet_chaos::{
    Blob, Cluster, ClusterOptions, Image, RegistryClient, artifact_for, image_index, wait_until,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Judged every second, blobs collected after two.
fn hasty(mode: &str) -> ClusterOptions {
    ClusterOptions::default()
        .setting("gc", "grace_seconds", "2")
        .setting("gc", "interval_seconds", "1")
        .setting("gc", "orphan_grace_seconds", "3")
        .setting("retention", "mode", &format!("{mode:?}"))
        .setting("retention", "interval_seconds", "1")
}

fn image(seed: u64) -> Image {
    Image::random(seed, &[100_000, 2_000])
}

/// The answer of `tercet retention --dry-run --json` with the configuration of one replica.
async fn dry_run(cluster: &Cluster, index: usize, further: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["retention", "--dry-run", "--json"], further].concat();
    let output = cluster.operate(index, &arguments).await?;
    let answer: Value = serde_json::from_str(&output.stdout).context(output.stdout)?;
    let found = answer.pointer("/repositories").and_then(Value::as_array);
    Ok(found.context("no repositories")?.clone())
}

fn list<'a>(judgement: &'a Value, key: &str) -> Vec<&'a Value> {
    judgement.get(key).and_then(Value::as_array).map(|all| all.iter().collect()).unwrap_or_default()
}

fn names(judgement: &Value) -> Vec<&str> {
    list(judgement, "tags").iter().filter_map(|gone| gone.get("tag")?.as_str()).collect()
}

async fn wait_tags(client: &RegistryClient, repository: &str, wanted: &[&str]) -> Result<()> {
    wait_until(&format!("{repository} has {wanted:?}"), DEADLINE, || async {
        let tags = client.tags(repository).await?;
        ensure!(tags == wanted, "{tags:?}");
        Ok(())
    })
    .await
}

/// Waits until no replica has a file of these blobs.
async fn wait_gone(cluster: &Cluster, blobs: &[&Blob]) -> Result<()> {
    wait_until("the blobs of what went are gone", DEADLINE, || async {
        for index in 0..cluster.len() {
            for blob in blobs {
                let path = cluster.replica(index).blob_path(&blob.digest)?;
                ensure!(!path.exists(), "replica {index} still has {}", blob.digest);
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_let_go_of_goes_with_its_space_and_nothing_else_does() -> Result<()> {
    let options = hasty("enforce").extra_config(
        "[[retention.rules]]
name = \"ci\"
repositories = [\"ci/*\"]
keep_last = 2
keep_tags = [\"keep-*\"]
untagged = \"delete\"
untagged_older_days = 0

[[access.immutable_tags]]
name = \"releases\"
repositories = [\"ci/*\"]
tags = [\"rel-*\"]",
    );
    let mut cluster = Cluster::start_with(options).await?;
    let client = cluster.rotating_client()?;
    let (kept, released) = (image(1), image(2));
    client.push_image("ci/app", "keep-1", &kept).await?;
    client.push_image("ci/app", "rel-1", &released).await?;
    let builds: Vec<Image> = (10..15).map(image).collect();
    let signature = artifact_for(&builds[0], "application/x.signature", Blob::random(90, 5_000));
    let mut signed = false;
    for (number, build) in builds.iter().enumerate() {
        client.push_image("ci/app", &format!("b{number}"), build).await?;
        client.push_image("prod/app", &format!("b{number}"), build).await?;
        if number == 0 {
            // Its image may be about to go already, and without that nothing keeps it.
            let digest = signature.manifest.digest.clone();
            client.push_image("ci/app", &digest, &signature).await?;
            signed = true;
        }
    }
    ensure!(signed);
    let only_here: Vec<Image> = (20..24).map(image).collect();
    for (number, build) in only_here.iter().enumerate() {
        client.push_image("ci/other", &format!("b{number}"), build).await?;
    }
    wait_tags(&client, "ci/app", &["b3", "b4", "keep-1", "rel-1"]).await?;
    wait_tags(&client, "ci/other", &["b2", "b3"]).await?;
    wait_until("manifests without a tag are gone", DEADLINE, || async {
        for gone in builds[..3].iter().chain([&signature]) {
            let path = format!("/v2/ci/app/manifests/{}", gone.manifest.digest);
            client.head(&path).await?.expect(404)?;
        }
        Ok(())
    })
    .await?;
    // What another repository names stays on the disks; what nothing names any more does not.
    let mut gone: Vec<&Blob> = only_here[..2].iter().flat_map(|build| &build.blobs).collect();
    gone.extend(signature.blobs.last());
    wait_gone(&cluster, &gone).await?;

    // The leader goes, and the next one judges by the same rules.
    let leader = cluster.leader().await?;
    cluster.kill9(leader)?;
    let survivor = cluster.client((leader + 1) % 3)?;
    let last = image(30);
    wait_until("pushes go on", DEADLINE, || survivor.push_image("ci/other", "b4", &last)).await?;
    wait_tags(&survivor, "ci/other", &["b3", "b4"]).await?;
    cluster.restart(leader)?;
    cluster.wait_ready(DEADLINE).await?;
    for index in 0..3 {
        let client = cluster.client(index)?;
        client.pull_image("ci/app", "keep-1", &kept).await?;
        client.pull_image("ci/app", "rel-1", &released).await?;
        for (number, build) in builds.iter().enumerate() {
            client.pull_image("prod/app", &format!("b{number}"), build).await?;
        }
        client.pull_image("ci/app", "b4", &builds[4]).await?;
        client.pull_image("ci/other", "b3", &only_here[3]).await?;
        client.pull_image("ci/other", "b4", &last).await?;
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_go_and_why_and_nothing_goes() -> Result<()> {
    let options = hasty("report").extra_config(
        "[[retention.rules]]
name = \"last\"
repositories = [\"team/**\"]
keep_last = 1
untagged = \"delete\"
untagged_older_days = 0",
    );
    let cluster = Cluster::start_with(options).await?;
    let client = cluster.rotating_client()?;
    let images: Vec<Image> = (0..3).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        client.push_image("team/a/app", &format!("v{number}"), image).await?;
    }
    let index = image_index(&[("amd64", &images[0]), ("arm64", &images[1])]);
    client.push_image("team/a/app", "multi", &index).await?;
    client.push_image("other/app", "v0", &images[0]).await?;
    // The rules come from the leader's file once it has a majority.
    wait_until("the rules are in force", DEADLINE, || async {
        let found = dry_run(&cluster, 0, &[]).await?;
        ensure!(found.len() == 1, "{found:?}");
        Ok(())
    })
    .await?;
    for replica in 0..3 {
        let found = dry_run(&cluster, replica, &[]).await?;
        let [judgement] = &found[..] else { anyhow::bail!("{found:?}") };
        ensure!(judgement.get("repository").and_then(Value::as_str) == Some("team/a/app"));
        ensure!(names(judgement) == ["v0", "v1", "v2"], "{judgement}");
        let why = list(judgement, "tags")[0].get("why").and_then(Value::as_str);
        ensure!(why == Some("not among the last 1"), "{why:?}");
        // What the index names stays with it.
        let manifests = list(judgement, "manifests");
        ensure!(manifests.len() == 1, "{manifests:?}");
        let digest = manifests[0].get("digest").and_then(Value::as_str);
        ensure!(digest == Some(&images[2].manifest.digest), "{digest:?}");
    }
    let text = cluster.operate(1, &["retention", "--dry-run"]).await?.stdout;
    println!("{text}");
    ensure!(text.contains("team/a/app") && text.contains("retention.mode is \"report\""), "{text}");

    // Other rules, before they are anybody's.
    let file = cluster.folder().join("proposed.toml");
    let rules = "[[retention.rules]]\nname = \"all\"\nrepositories = [\"**\"]\nkeep_last = 0\n";
    fs::write(&file, rules)?;
    let file = file.display().to_string();
    let found = dry_run(&cluster, 2, &["--rules", &file]).await?;
    ensure!(found.len() == 2, "both repositories: {found:?}");
    ensure!(found.iter().all(|one| list(one, "manifests").is_empty()), "{found:?}");

    // Several rounds have gone by; the counts tell, and all is there.
    wait_until("the leader has judged", DEADLINE, || async {
        let leader = cluster.leader().await?;
        let text = cluster.ops_text(leader, "/metrics").await?;
        ensure!(text.contains("tercet_retention_candidates{kind=\"tag\"} 3"), "{text}");
        Ok(())
    })
    .await?;
    wait_tags(&client, "team/a/app", &["multi", "v0", "v1", "v2"]).await?;
    client.pull_image("team/a/app", "v0", &images[0]).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_through_any_replica_are_known_to_all_and_outlive_a_restart() -> Result<()> {
    let options = hasty("enforce").extra_config(
        "[[retention.rules]]
name = \"used\"
repositories = [\"team/*\"]
keep_pulled_days = 1",
    );
    let mut cluster = Cluster::start_with(options).await?;
    let client = cluster.client(0)?;
    let images: Vec<Image> = (0..3).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        client.push_image("team/app", &format!("v{number}"), image).await?;
    }
    // By these nothing was ever recent enough: all are listed, with what is known of them.
    let file = cluster.folder().join("strict.toml");
    let rules =
        "[[retention.rules]]\nname = \"all\"\nrepositories = [\"**\"]\nkeep_pulled_days = 0\n";
    fs::write(&file, rules)?;
    let file = file.display().to_string();
    let path = format!("/v2/team/app/manifests/{}", images[1].manifest.digest);
    let known = |index: usize| {
        let (cluster, file, path) = (&cluster, &file, &path);
        async move {
            // A tag by GET on one replica, a digest by HEAD on another, v2 by nobody. Again and again: before
            // the rules are in force, pulls are nobody's business.
            cluster.client(1)?.get_manifest("team/app", "v0").await?.expect(200)?;
            cluster.client(2)?.head(path).await?.expect(200)?;
            let found = dry_run(cluster, index, &["--rules", file]).await?;
            let [judgement] = &found[..] else { anyhow::bail!("{found:?}") };
            let pulled = |gone: &&Value| gone.get("pulled_ms").is_some_and(Value::is_u64);
            let tags = list(judgement, "tags").into_iter();
            let names = tags.filter(pulled).filter_map(|gone| gone.get("tag")?.as_str());
            let names: Vec<String> = names.map(ToOwned::to_owned).collect();
            ensure!(names == ["v0", "v1"], "{judgement}");
            Ok(())
        }
    };
    for index in 0..3 {
        wait_until("the group knows of both pulls", DEADLINE, || known(index)).await?;
    }
    // By its own rules the group keeps all: what came today counts as pulled today.
    ensure!(dry_run(&cluster, 0, &[]).await?.is_empty());
    for index in 0..3 {
        cluster.kill9(index)?;
    }
    for index in 0..3 {
        cluster.restart(index)?;
    }
    cluster.wait_ready(DEADLINE).await?;
    let client = cluster.client(2)?;
    wait_tags(&client, "team/app", &["v0", "v1", "v2"]).await?;
    let found = dry_run(&cluster, 1, &["--rules", &file]).await?;
    let tags = found.first().map(|judgement| list(judgement, "tags")).unwrap_or_default();
    let pulled = tags.iter().filter(|gone| gone.get("pulled_ms").is_some_and(Value::is_u64));
    ensure!(pulled.count() == 2, "{tags:?}");
    cluster.shut_down().await
}
