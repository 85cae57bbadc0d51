//! Row 18: a replica comes back with an empty disk.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lost-disk",
    rows: &[18],
    hypothesis: "a replica that lost its disk comes back under a new id, takes the place of its old self, and fills \
                 itself while it serves",
    fault: "`kill -9`, the data directory wiped, a start; each replica in turn, the leader among them, during pushes and \
            pulls",
    given: "three replicas hold every blob; two of them stay whole",
    abort: "the replica comes back under its old id, or a second disk is lost before the first replica is whole \
            again",
    recovery: "it joins by itself under a new id, serves while it fills, and holds everything within 90 s; the old \
               id is no member any more",
    rollback: "on a cluster of one's own: there is nothing to undo; wait until `tercet status` shows no missing \
               blobs",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["lost disk"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 16 << 20))).await?;
    for round in 0..run.of(2, 12) {
        run.work().await?;
        let leader = run.leader().await?;
        let victim = (leader + round) % 3;
        let before = run.status(victim).await?.node_id;
        run.kill(victim)?;
        run.cluster()?.wipe(victim)?;
        run.faults.injected("lost disk", &format!("replica {victim}, id {before}"));
        let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        run.writes_resume(&standing).await?;
        run.cluster()?.restart(victim)?;
        another_id(run, victim, before).await?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let status = run.status(victim).await?;
        ensure!(
            status.members.iter().all(|member| member.node_id != before),
            "the old id {before} is still a member"
        );
    }
    Ok(())
}

/// Who has nothing left must not vote as the one that it was: the group counts on what that one had promised and
/// stored. Looked at on its disk, since it need not come to anything else.
async fn another_id(run: &mut Run, index: usize, before: u64) -> Result<()> {
    let path = run.cluster()?.replica(index).data_dir.join("identity.json");
    let id = wait_until("the empty disk has an identity", HEAL_DEADLINE, || async {
        let identity: Value = serde_json::from_slice(&fs::read(&path)?)?;
        identity.pointer("/node_id").and_then(Value::as_u64).context("an identity without an id")
    })
    .await?;
    if id == before {
        let what = format!(
            "replica {index} has lost all that it had acknowledged, and votes again as {id}"
        );
        run.ledger.violated(Invariant::I1, what);
    }
    Ok(())
}
