//! Row 2: the lights go out.

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-all",
    rows: &[2],
    hypothesis: "all replicas may die at the same moment: what was acknowledged is on disk",
    fault: "`kill -9` of all replicas at once during pushes, pulls and moves of tags, then a restart of all",
    given: "three replicas are ready and take writes; nothing else is wrong with any of them",
    abort: "a replica does not start on the disk that it left, or says that its log is damaged: keep the folders, \
            they are the evidence",
    recovery: "all replicas are ready again within 90 s of the start, with everything that was acknowledged; writes \
               go on then",
    rollback: "on a cluster of one's own: start all replicas; the order does not matter",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I4, Invariant::I5],
    fires: &["kill -9"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let options = LoadOptions::images_and_tags(3, run.of(256 << 10, 16 << 20));
    // Pulls cannot go on without any replica; those of the check at the end say what was kept.
    run.load(LoadOptions { pullers: 0, ..options }).await?;
    for _ in 0..run.of(2, 10) {
        run.work().await?;
        // One after the other within a few milliseconds: no process is told that the others go.
        for index in 0..3 {
            run.kill(index)?;
        }
        run.restart_all().await?;
    }
    run.progress(20).await
}
