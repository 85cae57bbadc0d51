//! Row 11, one replica at a time.

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario, disks::FORGETFUL};
use crate::{
    disk::Lost,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "power-loss-one",
    rows: &[11],
    hypothesis: "a replica that loses its power keeps its vote, its log and its blobs as far as it has promised them; the \
                 others go on, and nobody is given less than was acknowledged",
    fault: "one replica, now and then the leader, loses power under load: SIGKILL, and its disk (FUSE) forgets what was not \
            synced; again and again",
    given: "three replicas are ready and take writes, each on a disk of its own",
    abort: "writes do not resume within 20 s with two replicas up, or the replica does not start on the disk that it \
            finds",
    recovery: "writes resume within 10 s; the replica is ready within 90 s of its start, under its old id, and holds \
               everything again",
    rollback: "on a cluster of one's own: start the replica",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["power loss"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Fuse,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_disks(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 4 << 20))).await?;
    let mut sum = Lost::default();
    for round in 0..run.of(2, 20) {
        run.work().await?;
        let leader = run.leader().await?;
        let victim = if round % 2 == 0 { leader } else { run.choose(&[0, 1, 2])? };
        let lost = run.lose_power(&[victim], &FORGETFUL)?;
        sum.files += lost.files;
        sum.writes += lost.writes;
        sum.names += lost.names;
        let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        run.writes_resume(&standing).await?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
    }
    run.figure_lost(sum);
    Ok(())
}
