//! Row 20: one half of a replica's disk is gone.

use std::fs;

use anyhow::{Result, ensure};

use super::{Lane, Needs, Run, Scenario};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lost-half",
    rows: &[20],
    hypothesis: "a replica without its blobs serves from its peers and refills itself; one without its metadata rejoins \
                 as a new member and keeps the blobs it has",
    fault: "the blob folder of a stopped replica is removed; then the log, the state and the identity of another",
    given: "three replicas hold every blob; two of them stay whole",
    abort: "a pull fails on the replica that has lost its blobs while its peers hold them",
    recovery: "it is ready at once, serves from its peers, and holds every blob within 90 s; without metadata it \
               joins under a new id and copies only what it lacks",
    rollback: "on a cluster of one's own: wait until `tercet status` shows no missing blobs, or wipe the rest as \
               well and let it join anew",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I8],
    fires: &["blobs lost", "metadata lost"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(256 << 10, 16 << 20))).await?;
    for _ in 0..run.of(1, 6) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        let before = run.status(victim).await?.node_id;
        run.kill(victim)?;
        let data_dir = run.cluster()?.replica(victim).data_dir.clone();
        fs::remove_dir_all(data_dir.join("blobs"))?;
        run.faults.injected("blobs lost", &format!("replica {victim}"));
        // Ready, and asked by the load, long before it is full again.
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let after = run.status(victim).await?.node_id;
        ensure!(after == before, "the loss of blobs alone has cost replica {victim} its id");

        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        let before = run.status(victim).await?.node_id;
        run.kill(victim)?;
        let replica = run.cluster()?.replica(victim);
        for folder in ["log", "state"] {
            fs::remove_dir_all(replica.data_dir.join(folder))?;
        }
        fs::remove_file(replica.data_dir.join("identity.json"))?;
        run.faults.injected("metadata lost", &format!("replica {victim}"));
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let after = run.status(victim).await?.node_id;
        ensure!(after != before, "the old id {before} came back without its log");
    }
    Ok(())
}
