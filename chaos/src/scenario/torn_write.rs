//! Row 12: the power goes in the middle of a write, and writes reach the disk in another order.

use anyhow::{Result, ensure};

use super::{
    Lane, Needs, Run, Scenario,
    disks::{FORGOTTEN, Start},
};
use crate::{
    disk::{DataLoss, Lost, NameLoss, PowerLoss},
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "torn-write",
    rows: &[12],
    hypothesis: "a replica whose last writes reached the disk in part, or in another order, starts again with all that it has \
                 promised; one that cannot tell this from damage refuses to start, and rejoins once its disk is wiped",
    fault: "one replica loses power under load: of its last write that was not synced some sectors are on the disk (FUSE), or of \
            all such writes a random part; then all lose power at once in the middle of a write",
    given: "three replicas are ready and take writes, each on a disk of its own",
    abort: "more than one replica refuses to start: keep the folders, they are the evidence",
    recovery: "the replica is ready within 90 s of its start; one that refuses with code 65 or 74 does so at once, and is \
               whole again within 90 s of a start on an empty disk, under a new id",
    rollback: "on a cluster of one's own: start the replica; if it refuses, wipe its data directory and start it again, one \
               replica at a time",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["power loss"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Fuse,
    body: |run| Box::pin(body(run)),
};

/// What any number of replicas must survive at once.
const TORN: [PowerLoss; 3] = [
    PowerLoss { data: DataLoss::Torn, names: NameLoss::Kept },
    PowerLoss { data: DataLoss::Torn, names: NameLoss::Partly },
    PowerLoss { data: DataLoss::Torn, names: NameLoss::Forgotten },
];
/// The same, and what looks like damage in the middle of the log: a record that is missing before one that is there.
/// Nobody can tell it from a bad sector, so a replica may refuse to start, and only one replica at a time meets it.
const LOSSES: [PowerLoss; 4] = [
    PowerLoss { data: DataLoss::Torn, names: NameLoss::Kept },
    PowerLoss { data: DataLoss::Torn, names: NameLoss::Partly },
    PowerLoss { data: DataLoss::Reordered, names: NameLoss::Kept },
    PowerLoss { data: DataLoss::Reordered, ..FORGOTTEN },
];

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_disks(ClusterOptions::default()).await?;
    // Pulls cannot go on without any replica; those of the check at the end say what was kept.
    let options = LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20));
    run.load(LoadOptions { pullers: 0, ..options }).await?;
    let mut refused = 0;
    let mut sum = Lost::default();
    for _ in 0..run.of(2, 20) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        let lost = run.lose_power(&[victim], &LOSSES)?;
        sum.files += lost.files;
        sum.writes += lost.writes;
        sum.names += lost.names;
        let before = run.known_id(victim)?;
        run.cluster()?.restart(victim)?;
        if run.started(victim).await? == Start::Refused {
            refused += 1;
            run.cluster()?.wipe(victim)?;
            run.restart_all().await?;
            let after = run.status(victim).await?.node_id;
            ensure!(after != before, "the old id {before} came back on an empty disk");
        }
        run.whole_again(victim).await?;
    }
    for _ in 0..run.of(1, 10) {
        run.work().await?;
        let lost = run.lose_power(&[0, 1, 2], &TORN)?;
        sum.files += lost.files;
        sum.writes += lost.writes;
        sum.names += lost.names;
        for index in 0..3 {
            run.cluster()?.restart(index)?;
        }
        // Nothing that was promised is damaged, so nobody has a reason to refuse: a group of which the most refuse is lost.
        for index in 0..3 {
            if run.started(index).await? == Start::Refused {
                let what = format!("replica {index} refuses to start after a loss of power");
                run.ledger.violated(Invariant::I8, what);
            }
        }
        run.restart_all().await?;
    }
    run.figure("refused_to_start", refused);
    run.figure_lost(sum);
    run.progress(20).await
}
