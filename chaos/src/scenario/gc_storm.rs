//! Row 33: collection races with everything that gives a blob a new life.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use super::{Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    cluster::Cluster,
    content::EMPTY_JSON,
    digest::sha256,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Churn, Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "gc-storm",
    rows: &[33],
    hypothesis: "a blob is collected exactly when nothing has referred to it for its grace, whatever races: pushes of \
                 the same digest, mounts, deletes, a leader that dies",
    fault: "grace of a few seconds and a collection every second, while clients push, mount, delete and pull images \
            of the same few layers; kill -9 of a random replica, once of the leader",
    invariants: &[Invariant::I1, Invariant::I4, Invariant::I5, Invariant::I6, Invariant::I7],
    fires: &["blobs collected", "kill -9"],
    floor_per_second: 5.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const GRACE_SECONDS: u64 = 4;
/// After the storm: grace, some looks, and the comparison with the disk that finds what a dead process left.
const COLLECT_DEADLINE: Duration = Duration::from_secs(120);

async fn body(run: &mut Run) -> Result<()> {
    let grace = GRACE_SECONDS.to_string();
    let options = ClusterOptions::default()
        .setting("gc", "grace_seconds", &grace)
        .setting("gc", "orphan_grace_seconds", &grace)
        .setting("gc", "interval_seconds", "1");
    run.start(options).await?;
    // A clock for the run, and tags that must not suffer.
    run.load(LoadOptions { tag_writers: 1, ..LoadOptions::tags(3) }).await?;
    let grace = Duration::from_secs(GRACE_SECONDS);
    let churn = Churn::start(&run.targets, &run.ledger, grace, run.seed);
    for round in 0..run.of(2, 20) {
        run.last(grace, 2 * grace).await;
        let leader = run.leader().await?;
        let victim = if round == 0 { leader } else { run.choose(&[0, 1, 2])? };
        run.kill(victim)?;
        run.work().await?;
        run.restart_all().await?;
        run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
    }
    run.last(grace, 2 * grace).await;
    let churned = churn.churned();
    run.figure("churned", format!("{churned:?}"));
    ensure!(churned.deleted > 0 && churned.mounted > 0 && churned.met > 0, "too calm: {churned:?}");
    let mut needed = churn.stop().await?;
    run.stop_load().await?;
    // What the moving tags refer to.
    needed.insert(sha256(EMPTY_JSON));
    let collected = collected(run).await?;
    if collected > 0 {
        run.faults.injected("blobs collected", &format!("{collected} by the leaders"));
    }
    let cluster = run.cluster()?;
    wait_until("every replica has what is needed and nothing else", COLLECT_DEADLINE, || async {
        for index in 0..cluster.len() {
            same_files(cluster, index, &needed)?;
        }
        Ok(())
    })
    .await?;
    run.faults.note(&format!("{} blobs are left on every replica", needed.len()));
    Ok(())
}

fn same_files(cluster: &Cluster, index: usize, needed: &BTreeSet<String>) -> Result<()> {
    let replica = cluster.replica(index);
    let blobs = replica.data_dir.join("blobs");
    let mut wanted = BTreeSet::new();
    for digest in needed {
        let path: PathBuf = replica.blob_path(digest)?.strip_prefix(&blobs)?.to_path_buf();
        wanted.insert(path);
    }
    let found = cluster.files(index, "blobs")?.paths;
    let dead: Vec<_> = found.difference(&wanted).take(3).collect();
    ensure!(dead.is_empty(), "{} still has {} files, such as {dead:?}", replica.name, found.len());
    let lost: Vec<_> = wanted.difference(&found).take(3).collect();
    ensure!(lost.is_empty(), "{} lacks {lost:?}", replica.name);
    Ok(())
}

/// How many blobs the running replicas have collected, by their own count.
async fn collected(run: &mut Run) -> Result<u64> {
    let mut sum = 0.0;
    for index in 0..3 {
        let text = run.cluster()?.ops_text(index, "/metrics").await?;
        let values = text.lines().filter_map(|line| line.strip_prefix("tercet_gc_collected_total"));
        for value in values.filter_map(|rest| rest.split(' ').next_back()) {
            sum += value.parse::<f64>().unwrap_or_default();
        }
    }
    Ok(sum as u64)
}
