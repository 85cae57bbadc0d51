//! Row 16: no bytes left, or no inodes, on one disk and on all.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use reqwest::Method;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    disk::VolumeSpec,
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "full-disk",
    rows: &[16],
    hypothesis: "a full disk refuses what grows, with 507, and harms nothing: pulls go on, no process dies, and all is \
                 well by itself when there is space again",
    fault: "each replica has a small file system; another program takes all bytes of one, all inodes of one, then the \
            bytes of all, and gives them back",
    given: "three replicas, each on a small file system of its own with space left; images are pushed and tags move",
    abort: "a process ends, a pull fails, or the space for the Raft log is gone as well",
    recovery: "uploads are refused with 507 while there is no space; when there is some again the replica takes them \
               within seconds, without a restart, and catches up within 90 s",
    rollback: "the small file systems are unmounted with it. On a cluster of one's own: remove the file that takes \
               the space",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I7, Invariant::I8],
    fires: &["one disk without bytes", "one disk without inodes", "all disks without bytes"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Mounts,
    body: |run| Box::pin(body(run)),
};

const MIB: u64 = 1 << 20;
/// What the load writes in the full form fits in.
const BYTES: u64 = 1_500 * MIB;
const INODES: u64 = 40_000;
const REFUSAL_DEADLINE: Duration = Duration::from_secs(30);

async fn body(run: &mut Run) -> Result<()> {
    let options = ClusterOptions::default()
        .setting("limits", "disk_headroom_bytes", &(64 * MIB).to_string())
        .setting("limits", "raft_reserve_bytes", &(16 * MIB).to_string());
    let spec = VolumeSpec { bytes: BYTES, inodes: Some(INODES) };
    run.start_prepared(options, |cluster| {
        (0..cluster.len()).try_for_each(|index| cluster.give_volume(index, spec))
    })
    .await?;
    run.load(LoadOptions::images_and_tags(3, 32 << 10)).await?;
    for _ in 0..run.of(1, 4) {
        for (what, inodes) in [("one disk without bytes", false), ("one disk without inodes", true)]
        {
            run.work().await?;
            let victim = run.choose(&[0, 1, 2])?;
            let volume = run.cluster()?.volume(victim)?;
            if inodes {
                volume.fill_inodes(0).or_not_shown()?;
            } else {
                volume.fill(0).or_not_shown()?;
            }
            let fault = run.faults.begin(what, &format!("replica {victim}"));
            let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
            run.writes_resume(&others).await?;
            refuses(run, victim).await?;
            run.work().await?;
            run.cluster()?.volume(victim)?.free().or_not_shown()?;
            run.faults.end(fault);
            run.healed();
            run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
        }
        run.work().await?;
        for index in 0..3 {
            run.cluster()?.volume(index)?.fill(0).or_not_shown()?;
        }
        let fault = run.faults.begin("all disks without bytes", "replicas 0 1 2");
        run.majority_gone();
        for index in 0..3 {
            refuses(run, index).await?;
        }
        // Pulls go on: the load counts every one that fails.
        run.last(Duration::from_secs(1), Duration::from_secs(3)).await;
        for index in 0..3 {
            run.cluster()?.volume(index)?.free().or_not_shown()?;
        }
        run.faults.end(fault);
        run.healed();
        run.majority_back();
        run.writes_resume(&[0, 1, 2]).await?;
        run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    }
    let ended: BTreeMap<usize, bool> =
        (0..3).map(|index| Ok((index, run.cluster()?.is_running(index)))).collect::<Result<_>>()?;
    ensure!(ended.values().all(|running| *running), "a process has ended: {ended:?}");
    Ok(())
}

/// Waits until a replica refuses uploads for lack of space, and says so as it should.
async fn refuses(run: &mut Run, index: usize) -> Result<()> {
    let client = run.client(index)?;
    let ledger = run.ledger.clone();
    wait_until("a full replica refuses uploads", REFUSAL_DEADLINE, || async {
        let answer = client.call(Method::POST, "/v2/chaos/images/blobs/uploads/").await?;
        ensure!(answer.status == 507, "it answers {}", answer.describe());
        answer.need_header("retry-after")?;
        ledger.judge_error(&answer);
        Ok(())
    })
    .await
}
