//! Row 18: a replica comes back with an empty disk.

use anyhow::{Result, ensure};

use super::{Needs, Run, Scenario};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lost-disk",
    rows: &[18],
    hypothesis: "a replica that lost its disk comes back under a new id, takes the place of its old self, and fills \
                 itself while it serves",
    fault: "kill -9, the data directory wiped, a start; each replica in turn, the leader among them, during pushes and \
            pulls",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["lost disk"],
    floor_per_second: 1.0,
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
        let before = run.cluster()?.status(victim).await?.node_id;
        run.kill(victim)?;
        run.cluster()?.wipe(victim)?;
        run.faults.injected("lost disk", &format!("replica {victim}, id {before}"));
        let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        run.writes_resume(&standing).await?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let status = run.cluster()?.status(victim).await?;
        ensure!(status.node_id != before, "the old id {before} came back");
        ensure!(
            status.members.iter().all(|member| member.node_id != before),
            "the old id {before} is still a member"
        );
    }
    Ok(())
}
