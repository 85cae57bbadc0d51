//! Row 1: any minority dies, again and again.

use anyhow::Result;
use rand::RngExt as _;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kill-minority",
    rows: &[1],
    hypothesis: "replicas may be killed at any time: as long as a majority is left, nobody loses anything, and \
                 what comes back fills itself",
    fault: "`kill -9` of a random minority during pushes, pulls and moves of tags, then a restart; again and again",
    given: "three replicas (five in the full form) are ready, follow one leader and miss no blob; images are pushed \
            and pulled and tags move all the time",
    abort: "a pull fails on every replica, an acknowledged digest is answered with 404, or no write is acknowledged \
            for a minute with a majority up",
    recovery: "writes go on within 10 s of each kill; a restarted replica is ready within 90 s and holds every blob \
               soon after",
    rollback: "on a cluster of one's own: start the replica again on the disk that it has, and wait until `tercet \
               status` shows no missing blobs",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["kill -9"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    let replicas = run.of(3, 5);
    let rounds = run.of(3, 15);
    // With more replicas than copies not everybody holds everything.
    run.full_copies = replicas == 3;
    run.start(ClusterOptions::default().replicas(replicas)).await?;
    let layer_max = run.of(256 << 10, 64 << 20);
    run.load(LoadOptions::images_and_tags(replicas, layer_max)).await?;
    for _ in 0..rounds {
        run.work().await?;
        let minority = run.random.random_range(1..=(replicas - 1) / 2);
        let mut standing: Vec<usize> = (0..replicas).collect();
        for _ in 0..minority {
            let victim = run.choose(&standing)?;
            standing.retain(|index| *index != victim);
            run.kill(victim)?;
        }
        run.writes_resume(&standing).await?;
        run.work().await?;
        run.restart_all().await?;
    }
    Ok(())
}
