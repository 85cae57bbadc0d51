//! Row 33: collection races with everything that gives a blob a new life.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario, revival::revive, run::HEAL_DEADLINE};
use crate::{
    check::check_collection,
    content::EMPTY_JSON,
    digest::sha256,
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Churn, Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "gc-storm",
    rows: &[33],
    hypothesis: "a blob is collected exactly when nothing has referred to it for its grace, whatever races: pushes of \
                 the same digest, mounts, deletes, a leader that dies",
    fault: "grace of a few seconds and a collection every second, while clients push, mount, delete and pull images \
            of the same few layers, and one pushes blobs again at the moment at which they are collected; kill -9 of a \
            random replica, once of the leader",
    given: "three replicas with a grace of four seconds and a collection every second; repositories share most of \
            their layers",
    abort: "a pull of an image that nobody deleted answers 404: stop the collection at once (`gc.interval_seconds`), \
            its candidates are in the log",
    recovery: "within two minutes of the end of the storm every replica has the blobs that something refers to and \
               no others",
    rollback: "on a cluster of one's own: set the grace back; a collected blob comes back only by another push",
    invariants: &[Invariant::I1, Invariant::I4, Invariant::I5, Invariant::I6, Invariant::I7],
    fires: &["blobs collected", "kill -9", "revival"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
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
    let mut revived = BTreeSet::new();
    for round in 0..run.of(2, 20) {
        revived.extend(revive(run, round, grace).await?);
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
    let storm = churned.deleted > 0 && churned.mounted > 0 && churned.met > 0;
    ensure_shown!(storm, "too calm: {churned:?}");
    let mut needed = churn.stop().await?;
    needed.extend(revived);
    run.stop_load().await?;
    // What the moving tags refer to.
    needed.insert(sha256(EMPTY_JSON));
    let collected = collected(run).await?;
    if collected > 0 {
        run.faults.injected("blobs collected", &format!("{collected} by the leaders"));
    }
    let ledger = Arc::clone(&run.ledger);
    let cluster = run.cluster()?;
    check_collection(&ledger, cluster, &needed, COLLECT_DEADLINE).await?;
    run.faults.note(&format!("{} blobs are left on every replica", needed.len()));
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
