//! Row 11: the power goes, and with it everything that was not synced.

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario, disks::FORGETFUL};
use crate::{
    check::{check_copies, check_newest},
    disk::Lost,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "power-loss",
    rows: &[11],
    hypothesis: "all replicas may lose their power at the same instant: what was acknowledged had been synced before, bytes \
                 and names, and is there again",
    fault: "all replicas lose power at once during pushes and moves of tags: SIGKILL, and each disk (FUSE) forgets what was \
            not synced; sometimes its journal of names has got further than its bytes",
    given: "three replicas are ready and take writes, each on a disk of its own",
    abort: "a replica does not start on the disk that it finds, or says that its log is damaged: keep the folders, \
            they are the evidence",
    recovery: "all replicas are ready again within 90 s of the start, with everything that was acknowledged; writes \
               go on then",
    rollback: "on a cluster of one's own: start all replicas; the order does not matter",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I4, Invariant::I5],
    fires: &["power loss"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Fuse,
    body: |run| Box::pin(body(run)),
};

/// Of three replicas.
const WRITE_QUORUM: usize = 2;
/// So many images are read as soon as the replicas are back.
const NEWEST: usize = 10;

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_disks(ClusterOptions::default()).await?;
    let options = LoadOptions::images_and_tags(3, run.of(128 << 10, 4 << 20));
    // Pulls cannot go on without any replica; those of the check at the end say what was kept.
    run.load(LoadOptions { pullers: 0, ..options }).await?;
    let mut sum = Lost::default();
    for round in 0..run.of(2, 15) {
        run.work().await?;
        let losses = if round == 0 { &FORGETFUL[..1] } else { &FORGETFUL[..] };
        let lost = run.lose_power(&[0, 1, 2], losses)?;
        sum.files += lost.files;
        sum.writes += lost.writes;
        sum.names += lost.names;
        // Before anybody can repair anything.
        let blobs = run.ledger.kept_blobs();
        let ledger = run.ledger.clone();
        check_copies(&ledger, run.cluster()?, &[0, 1, 2], &blobs, WRITE_QUORUM)?;
        for index in 0..3 {
            run.cluster()?.restart(index)?;
        }
        // One has ended, or does not become ready.
        if let Err(error) = run.restart_all().await {
            let what = format!("the replicas do not start on what they had synced: {error:#}");
            run.ledger.violated(Invariant::I1, what);
            return Err(error);
        }
        let clients = (0..3).map(|index| run.client(index)).collect::<Result<Vec<_>>>()?;
        check_newest(&run.ledger, &clients, NEWEST).await;
    }
    run.figure_lost(sum);
    run.progress(20).await
}
