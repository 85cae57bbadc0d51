//! Row 26: replicas are told to stop while large blobs go through them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    content::Blob,
    not_shown::{OrNotShown as _, ensure_shown},
    options::ClusterOptions,
    workload::{Invariant, Ledger, LoadOptions, Targets, Transfer, pull_resumed, push_resumed},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "drain",
    rows: &[26],
    hypothesis: "a replica that is told to stop ends what it has begun; who is cut all the same goes on elsewhere",
    fault: "SIGTERM to one replica after the other, the leader among them, during uploads and pulls of 64 MiB; it is \
            started again when it has ended",
    given: "three replicas are ready; large blobs are pushed and pulled through all of them and tags move",
    abort: "a replica still runs 40 s after SIGTERM, or ends with another code than 0",
    recovery: "requests that were begun end within the grace of 25 s; who is cut all the same goes on at another \
               replica; the restarted replica has caught up within 90 s",
    rollback: "on a cluster of one's own: start the replica again",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["SIGTERM"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "chaos/large";
const SIZE: usize = 64 << 20;
const PUSHERS: u64 = 2;
const PULLERS: u64 = 2;
/// The grace period is 25 s.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

type Pushed = Arc<Mutex<Vec<(String, u64)>>>;

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions { tag_writers: 1, ..LoadOptions::tags(3) }).await?;
    let pushed = Pushed::default();
    let stop = watch::Sender::new(false);
    let mut clients = JoinSet::new();
    for number in 0..PUSHERS + PULLERS {
        let random = StdRng::seed_from_u64(run.random.random());
        let (targets, ledger) = (run.targets.clone(), Arc::clone(&run.ledger));
        let (pushed, stopped) = (Arc::clone(&pushed), stop.subscribe());
        if number < PUSHERS {
            clients.spawn(push(targets, ledger, pushed, stopped, random));
        } else {
            clients.spawn(pull(targets, ledger, pushed, stopped, random));
        }
    }
    for round in 0..run.of(1, 4) {
        let first = run.leader().await?;
        for offset in 0..3 {
            run.last(Duration::from_millis(500), Duration::from_millis(1_500)).await;
            let victim = (first + offset + round) % 3;
            run.cluster()?.term(victim)?;
            run.faults.injected("SIGTERM", &format!("replica {victim}"));
            let status = run.cluster()?.wait_exit(victim, STOP_DEADLINE).await?;
            ensure!(status.code() == Some(0), "replica {victim} stopped with {status}");
            run.faults.note(&format!("replica {victim} has ended"));
            run.restart_all().await?;
            run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
        }
    }
    stop.send_replace(true);
    let mut all = Transfer::default();
    while let Some(ended) = clients.join_next().await {
        let transfer = ended.context("a client panicked").or_not_shown()??;
        all.resumed += transfer.resumed;
        all.restarted += transfer.restarted;
    }
    let count = pushed.lock().await.len();
    ensure_shown!(count > 0, "no large blob was pushed");
    run.figure("blobs of 64 MiB pushed", count);
    run.figure("transfers that went on", all.resumed);
    run.figure("uploads begun again", all.restarted);
    Ok(())
}

async fn push(
    targets: Targets,
    ledger: Arc<Ledger>,
    pushed: Pushed,
    stopped: watch::Receiver<bool>,
    mut random: StdRng,
) -> Result<Transfer> {
    let mut sum = Transfer::default();
    while !*stopped.borrow() {
        let seed = random.random();
        let blob = tokio::task::spawn_blocking(move || Blob::random(seed, SIZE)).await?;
        let transfer = push_resumed(&ledger, &targets, REPOSITORY, &blob, &mut random).await?;
        sum.resumed += transfer.resumed;
        sum.restarted += transfer.restarted;
        pushed.lock().await.push((blob.digest, SIZE as u64));
    }
    Ok(sum)
}

async fn pull(
    targets: Targets,
    ledger: Arc<Ledger>,
    pushed: Pushed,
    stopped: watch::Receiver<bool>,
    mut random: StdRng,
) -> Result<Transfer> {
    let mut sum = Transfer::default();
    while !*stopped.borrow() {
        let newest = pushed.lock().await.last().cloned();
        let Some((digest, size)) = newest else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let transfer =
            pull_resumed(&ledger, &targets, REPOSITORY, &digest, size, &mut random).await?;
        sum.resumed += transfer.resumed;
    }
    Ok(sum)
}
