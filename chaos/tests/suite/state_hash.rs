//! All replicas have the same state at the same entry of the log, and can be asked whether that is so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tercet_chaos::{Cluster, Image, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// The answers of `tercet state-hash --json`, once it says that all are the same.
async fn agreed(cluster: &Cluster, index: usize) -> Result<Vec<Value>> {
    wait_until("all replicas have the same state", DEADLINE, || async {
        let said = cluster.operate(index, &["state-hash", "--json"]).await?;
        let answers: Value = serde_json::from_str(&said.stdout)?;
        Ok(answers.as_array().context("a list")?.clone())
    })
    .await
}

fn digest(answer: &Value) -> Result<String> {
    let digest = answer.pointer("/state/digest").and_then(Value::as_str);
    Ok(digest.with_context(|| format!("no digest in {answer}"))?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_agree_also_after_one_was_filled_by_a_snapshot() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let empty = agreed(&cluster, 0).await?;
    ensure!(empty.len() == 3, "{empty:?}");
    for number in 0..5_u64 {
        let client = cluster.client((number % 3) as usize)?;
        let image = Image::random(number, &[20_000, 3_000]);
        client.push_image("library/hashed", &format!("t{number}"), &image).await?;
    }
    let filled = agreed(&cluster, 1).await?;
    ensure!(digest(&filled[0])? != digest(&empty[0])?, "pushes change nothing");
    let digests = filled.iter().map(digest).collect::<Result<Vec<_>>>()?;
    ensure!(digests.iter().all(|one| *one == digests[0]), "{digests:?}");
    // One member by its name, through another one.
    let name = cluster.replica(2).name.clone();
    let said = cluster.operate(0, &["state-hash", "--of", &name]).await?;
    ensure!(
        said.stdout.contains(&name) && said.stdout.contains("the same on all"),
        "{}",
        said.all()
    );
    // A replica that lost everything is filled by the others.
    cluster.kill9(2)?;
    cluster.wipe(2)?;
    cluster.restart(2)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.wait_caught_up(2, DEADLINE).await?;
    let again = agreed(&cluster, 2).await?;
    ensure!(again.len() == 3, "{again:?}");
    // And the check of a disk says the same as its replica.
    let state = wait_until("nothing is written any more", DEADLINE, || async {
        let one = agreed(&cluster, 0).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let two = agreed(&cluster, 0).await?;
        ensure!(digest(&one[0])? == digest(&two[0])?, "it still changes");
        digest(&two[0])
    })
    .await?;
    cluster.kill9(1)?;
    let said = cluster.operate(1, &["fsck"]).await?;
    ensure!(said.stdout.contains(&state), "{state} is not in {}", said.stdout);
    cluster.restart(1)?;
    cluster.wait_ready(DEADLINE).await?;
    cluster.shut_down().await
}
