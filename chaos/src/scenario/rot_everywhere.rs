//! Row 14: every replica has lost something, each something else.

use anyhow::{Result, ensure};
use rand::RngExt as _;

use super::{
    Lane, Needs, Run, Scenario,
    damage::flip_bit,
    run::{HEAL_DEADLINE, SCRUB_DEADLINE},
};
use crate::{
    not_shown::ensure_shown,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rot-everywhere",
    rows: &[14],
    hypothesis: "as long as one good copy of each blob is left, on whatever replica, every pull is right and every copy \
                 is good again after a scrub",
    fault: "a bit is flipped in every blob on all replicas but one, and on which one differs from blob to blob, while \
            clients pull",
    given: "three replicas hold every blob, each checked by a scrub not long ago; clients pull all the time",
    abort: "a pull gives wrong bytes, or a blob has no good copy left: stop every replica then, and restore from a \
            backup",
    recovery: "pulls are right throughout; every copy is right again within 6 minutes of a scrub on each replica, and the \
               damaged ones lie in quarantine",
    rollback: "on a cluster of one's own: never hurt the last good copy; `tercet scrub --now --wait` on each replica \
               repairs the rest",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I8],
    fires: &["damage"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default().scrubs_at_once()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    let rounds = run.of(1, 5);
    for _ in 0..rounds {
        run.progress(60).await?;
        let blobs: Vec<String> = run.ledger.kept_blobs().into_iter().collect();
        ensure_shown!(!blobs.is_empty(), "nothing was pushed");
        for digest in &blobs {
            let spared = run.random.random_range(0..3);
            for index in 0..3 {
                run.cluster()?.wait_held(index, digest, HEAL_DEADLINE).await?;
            }
            for index in (0..3).filter(|index| *index != spared) {
                let path = run.cluster()?.replica(index).blob_path(digest)?;
                flip_bit(&path, (0.0, 1.0), &mut run.random)?;
                run.faults.injected("damage", &format!("{digest} of replica {index}"));
            }
        }
        run.work().await?;
        let cluster = run.cluster()?;
        for index in 0..3 {
            // Fails by design where it finds something.
            let _ = cluster.operate(index, &["scrub", "--now", "--wait"]).await;
        }
        let cluster = &*cluster;
        for index in 0..3 {
            wait_until("the scrub finds nothing wrong", SCRUB_DEADLINE, || async {
                cluster.operate(index, &["scrub", "--now", "--wait"]).await?;
                Ok(())
            })
            .await?;
            let evidence = cluster.files(index, "quarantine")?.paths.len();
            ensure!(evidence > 0, "replica {index} has kept no evidence");
        }
        // A scrub finds nothing wrong also while a damaged copy lies in quarantine and the new one is on its way.
        for index in 0..3 {
            run.whole_again(index).await?;
        }
    }
    Ok(())
}
