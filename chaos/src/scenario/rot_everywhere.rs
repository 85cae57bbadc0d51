//! Row 14: every replica has lost something, each something else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt as _;

use super::{Needs, Run, Scenario, damage::flip_bit, run::HEAL_DEADLINE};
use crate::{
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
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I8],
    fires: &["damage"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    let rounds = run.of(1, 5);
    for _ in 0..rounds {
        run.progress(60).await?;
        let blobs: Vec<String> = run.ledger.kept_blobs().into_iter().collect();
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
            wait_until("the scrub finds nothing wrong", HEAL_DEADLINE, || async {
                cluster.operate(index, &["scrub", "--now", "--wait"]).await?;
                Ok(())
            })
            .await?;
            let evidence = cluster.files(index, "quarantine")?.paths.len();
            ensure!(evidence > 0, "replica {index} has kept no evidence");
        }
        let blob = blobs.first().context("nothing was pushed")?;
        cluster.wait_held(0, blob, Duration::from_secs(1)).await?;
    }
    Ok(())
}
