//! Row 24: a replica was away for so long that the log no longer reaches back to it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, stream};

use super::{Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    content::{Blob, EMPTY_JSON, MediaType},
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions, register_manifest},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "snapshot-install",
    rows: &[24],
    hypothesis: "a replica that the log no longer reaches gets a snapshot, also if it dies while it installs it",
    fault: "a follower is killed and stays away until the leader has purged the entries it lacks; when it is back it \
            is killed as soon as a snapshot arrives; then it may finish",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5],
    fires: &["kill -9", "kill during install", "snapshot installed"],
    floor_per_second: 5.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// A snapshot is taken every 20 000 entries and 5 000 are kept behind it; both are rounded up here.
const ENTRIES: u64 = 26_000;
/// Clients that write at the same time: their entries share an fsync.
const WRITERS: usize = 96;
const REPOSITORY: &str = "chaos/fill";
/// The replica's own words, when the whole snapshot is there.
const INSTALLING: &str = "installing a snapshot from the leader";
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions { tag_readers: 2, ..LoadOptions::tags(3) }).await?;
    for round in 0..run.of(1, 3) {
        run.work().await?;
        let leader = run.leader().await?;
        let victim = (leader + 1 + run.choose(&[0, 1])?) % 3;
        run.kill(victim)?;
        fill(run, leader, round).await?;
        let before = installs(run, victim)?;

        run.cluster()?.restart(victim)?;
        let data = run.cluster()?.replica(victim).data_dir.clone();
        let arriving = data.join("snapshots");
        wait_until("a snapshot arrives", ARRIVAL_DEADLINE, || async {
            let count = crate::files::count_files(&arriving)?;
            ensure!(!count.paths.is_empty(), "there is none");
            Ok(())
        })
        .await?;
        run.cluster()?.kill9(victim)?;
        run.faults.injected("kill during install", &format!("replica {victim}"));

        run.restart_all().await?;
        run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
        let after = installs(run, victim)?;
        ensure!(after > before, "replica {victim} caught up without a snapshot: nothing was tried");
        run.faults.injected("snapshot installed", &format!("replica {victim}"));
    }
    Ok(())
}

fn installs(run: &mut Run, index: usize) -> Result<usize> {
    Ok(run.cluster()?.replica(index).log_text().matches(INSTALLING).count())
}

/// Writes until the leader's log has grown by more than it keeps.
async fn fill(run: &mut Run, leader: usize, round: usize) -> Result<()> {
    let client = run.client(leader)?;
    client.push_blob(REPOSITORY, &Blob::new(EMPTY_JSON)).await?;
    let start = run.cluster()?.status(leader).await?.applied;
    let ledger = Arc::clone(&run.ledger);
    let mut next = 0_u64;
    loop {
        let applied = run.cluster()?.status(leader).await?.applied;
        let grown = applied.checked_sub(start).context("the leader has forgotten entries")?;
        if grown >= ENTRIES {
            run.faults.note(&format!("the log has grown by {grown} entries"));
            return Ok(());
        }
        let batch = 2_000;
        stream::iter(next..next + batch)
            .map(|number| {
                let manifest = register_manifest(&format!("fill-{round}-{number}"));
                let (client, ledger) = (client.clone(), Arc::clone(&ledger));
                async move {
                    // Few tags: what grows is the log.
                    let tag = format!("fill-{}", number % 500);
                    let bytes = manifest.bytes;
                    let answer =
                        client.put_manifest(REPOSITORY, &tag, MediaType::MANIFEST, bytes).await;
                    ledger.judge_write(answer, &[201]);
                }
            })
            .buffer_unordered(WRITERS)
            .collect::<Vec<()>>()
            .await;
        next += batch;
    }
}
