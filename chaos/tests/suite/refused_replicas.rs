//! Replicas that must not take part: each is refused with a code that the documentation explains.

use std::time::Duration;

use anyhow::{Result, ensure};
use tercet_chaos::{Cluster, Image, Launch, Tool, wait_until};

const REPOSITORY: &str = "library/refused";
const DEADLINE: Duration = Duration::from_secs(90);

/// The replica runs, says why it does not serve, and has closed its registry listener.
async fn ensure_refused(cluster: &Cluster, index: usize, code: &str) -> Result<()> {
    wait_until(&format!("refused with {code}"), DEADLINE, || async {
        let refused = cluster.status(index).await?.refused.unwrap_or_default();
        ensure!(refused.contains(code), "it says `{refused}`");
        Ok(())
    })
    .await?;
    ensure!(cluster.ops_status(index, "/readyz").await? == 503);
    ensure!(cluster.ops_status(index, "/livez").await? == 200);
    wait_until("the registry listener is closed", DEADLINE, || async {
        ensure!(cluster.client(index)?.get("/v2/").await.is_err(), "it still answers");
        Ok(())
    })
    .await?;
    let log = cluster.replica(index).log_text();
    ensure!(log.contains(code), "its log does not name {code}");
    let ops = cluster.ops_url(index);
    let status = cluster.command().run(&["status", "--ops", &ops]).await?;
    ensure!(status.stdout.contains(code), "{}", status.stdout);
    Ok(())
}

async fn copy_folder(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    Tool::find("cp")?.run(&["-a", &from, &to]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_was_replaced_and_is_restored_by_hand_is_refused() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let image = Image::random(1, &[50_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    let old_id = cluster.status(2).await?.node_id;
    cluster.kill9(2)?;
    let saved = cluster.folder().join("saved");
    copy_folder(&cluster.replica(2).data_dir, &saved).await?;
    cluster.wipe(2)?;
    cluster.restart(2)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.wait_caught_up(2, DEADLINE).await?;
    let new_id = cluster.status(2).await?.node_id;
    cluster.kill9(2)?;

    cluster.wipe(2)?;
    copy_folder(&saved, &cluster.replica(2).data_dir).await?;
    cluster.restart(2)?;
    ensure_refused(&cluster, 2, "TERCET-M01").await?;
    let members = cluster.status(0).await?.members;
    let known: Vec<u64> = members.iter().map(|member| member.node_id).collect();
    ensure!(known.contains(&new_id) && !known.contains(&old_id), "members {known:?}");
    // It cannot make up for the third vote either.
    cluster.kill9(1)?;
    wait_until("no quorum without the real third", DEADLINE, || async {
        let bytes = image.manifest.bytes.clone();
        let client = cluster.client(0)?;
        let answer = client.put_manifest(REPOSITORY, "v2", &image.media_type, bytes).await?;
        ensure!(answer.status == 503, "{}", answer.describe());
        Ok(())
    })
    .await?;
    cluster.restart(1)?;
    // What the documentation says to do.
    cluster.kill9(2)?;
    cluster.wipe(2)?;
    cluster.restart(2)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.wait_caught_up(2, DEADLINE).await?;
    cluster.client(2)?.pull_image(REPOSITORY, "v1", &image).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_process_and_one_name() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let config = cluster.replica(1).config.display().to_string();
    let said = cluster.command().run_to_fail(&["serve", "--config", &config]).await?;
    ensure!(said.contains("TERCET-M07"), "{said}");
    // The first one has not noticed.
    let image = Image::random(2, &[50_000]);
    cluster.client(1)?.push_image(REPOSITORY, "v1", &image).await?;
    cluster.kill9(1)?;
    let arguments = ["serve", "--config", &config, "--name", "tercet-9"];
    let said = cluster.command().run_to_fail(&arguments).await?;
    ensure!(said.contains("TERCET-M08"), "{said}");
    cluster.restart(1)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.client(1)?.pull_image(REPOSITORY, "v1", &image).await?;
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_another_cluster_is_refused() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let stranger = cluster.grow_stopped()?;
    // First it founds a cluster of its own.
    let alone = format!("{}={}", cluster.replica(stranger).name, cluster.replica(stranger).peer);
    cluster.set_launch(stranger, Launch::default().with("TERCET_CLUSTER_MEMBERS", &alone));
    cluster.restart(stranger)?;
    wait_until("a cluster of one", DEADLINE, || async {
        let status = cluster.status(stranger).await?;
        ensure!(status.leader.as_deref() == Some("tercet-3"), "{status:?}");
        Ok(())
    })
    .await?;
    let other = cluster.status(stranger).await?.cluster_id;
    ensure!(other != cluster.status(0).await?.cluster_id);
    cluster.kill9(stranger)?;
    cluster.set_launch(stranger, Launch::default());
    cluster.restart(stranger)?;
    // By a cluster of its own it is a leader, and pulls from it are its own affair; what counts is that it
    // says so, and that the three do not count it.
    wait_until("it is refused", DEADLINE, || async {
        let log = cluster.replica(stranger).log_text();
        ensure!(log.contains("TERCET-M02"), "no TERCET-M02 in its log");
        Ok(())
    })
    .await?;
    let members = cluster.status(0).await?.members;
    ensure!(members.iter().all(|member| member.name != "tercet-3" || !member.reachable));
    let image = Image::random(3, &[50_000]);
    cluster.client(0)?.push_image(REPOSITORY, "v1", &image).await?;
    if cluster.is_running(stranger) {
        cluster.kill9(stranger)?;
    }
    cluster.shut_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replica_of_one_name_is_refused_while_the_first_lives() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let first_id = cluster.status(1).await?.node_id;
    let second = cluster.grow_stopped()?;
    cluster.set_launch(second, Launch::default().with("TERCET_NODE_NAME", "tercet-1"));
    cluster.restart(second)?;
    wait_until("it is refused", DEADLINE, || async {
        let refused = cluster.status(second).await?.refused.unwrap_or_default();
        ensure!(refused.contains("TERCET-M06"), "it says `{refused}`");
        Ok(())
    })
    .await?;
    ensure!(cluster.ops_status(second, "/readyz").await? == 503);
    let status = cluster.status(0).await?;
    let still = status.member("tercet-1").map(|member| member.node_id);
    ensure!(still == Some(first_id), "tercet-1 is {still:?}, it was {first_id}");
    let image = Image::random(4, &[50_000]);
    cluster.client(1)?.push_image(REPOSITORY, "v1", &image).await?;
    cluster.kill9(second)?;
    cluster.shut_down().await
}
