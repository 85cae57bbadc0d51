//! Row 24: a replica was away for so long that the log no longer reaches back to it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt as _, stream};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    client::RegistryClient,
    content::{Blob, EMPTY_JSON, MediaType},
    not_shown::ensure_shown,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, Ledger, LoadOptions, register_manifest},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "snapshot-install",
    rows: &[24],
    hypothesis: "a replica that the log no longer reaches gets a snapshot, also if it dies while it installs it",
    fault: "a follower is killed and stays away until the leader has purged the entries it lacks; when it is back it \
            is killed as soon as a snapshot arrives; then it may finish",
    given: "three replicas follow one leader and have applied the same; no snapshot is on its way",
    abort: "the leader stops to take writes while the snapshot is sent, or the follower ends by itself a second time",
    recovery: "the follower installs a whole snapshot and has caught up within 90 s of its last start",
    rollback: "on a cluster of one's own: let the follower run; if it does not catch up, wipe its data folder and \
               let it join anew",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5],
    fires: &["kill -9", "kill during install", "snapshot installed"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// A snapshot is taken every 20 000 entries and 5 000 are kept behind it; both are rounded up here.
pub(super) const ENTRIES: u64 = 26_000;
/// Clients that write at the same time: their entries share an fsync.
const WRITERS: usize = 96;
/// Writes between two looks at the log.
const BATCH: u64 = 2_000;
const REPOSITORY: &str = "chaos/fill";
/// The replica's own words, when the whole snapshot is there.
const INSTALLING: &str = "installing a snapshot from the leader";
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(60);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let options = LoadOptions::images_and_tags(3, run.of(64 << 10, 1 << 20));
    run.load(LoadOptions { tag_readers: 2, ..options }).await?;
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
        ensure_shown!(
            after > before,
            "replica {victim} caught up without a snapshot: nothing was tried"
        );
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
    prepare_fill(run, leader).await?;
    let start = run.status(leader).await?.applied;
    let ledger = Arc::clone(&run.ledger);
    let mut batches = 0_u64;
    loop {
        let applied = run.status(leader).await?.applied;
        let grown = applied.checked_sub(start).context("the leader has forgotten entries")?;
        if grown >= ENTRIES {
            run.faults.note(&format!("the log has grown by {grown} entries"));
            return Ok(());
        }
        write_batch(&client, &ledger, &format!("{round}-{batches}")).await;
        batches += 1;
    }
}

/// The one blob of what is written to let the log grow.
pub(super) async fn prepare_fill(run: &mut Run, index: usize) -> Result<()> {
    run.push_blob(index, REPOSITORY, &Blob::new(EMPTY_JSON)).await
}

/// Writes many manifests that no other write of the run has, if `name` is that of no other. Returns how many were
/// acknowledged.
pub(super) async fn write_batch(client: &RegistryClient, ledger: &Arc<Ledger>, name: &str) -> u64 {
    let acknowledged = stream::iter(0..BATCH)
        .map(|number| {
            let manifest = register_manifest(&format!("fill-{name}-{number}"));
            async move {
                // Few tags: what grows is the log.
                let tag = format!("fill-{}", number % 500);
                let bytes = manifest.bytes;
                let answer =
                    client.put_manifest(REPOSITORY, &tag, MediaType::MANIFEST, bytes).await;
                u64::from(ledger.judge_write(answer, &[201]).is_acknowledged())
            }
        })
        .buffer_unordered(WRITERS)
        .collect::<Vec<u64>>()
        .await;
    acknowledged.into_iter().sum()
}
