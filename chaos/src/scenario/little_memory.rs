//! Row 28: a replica that the kernel would kill if it wanted much.

use anyhow::{Result, ensure};

use super::{Lane, Needs, Run, Scenario};
use crate::{
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "little-memory",
    rows: &[28],
    hypothesis: "256 MiB of memory, page cache included, are enough: nobody is killed for want of more",
    fault: "each replica lives in a memory cgroup of 256 MiB, under pushes and pulls of layers up to 64 MiB; one is killed \
            and fills itself within its bound",
    given: "three replicas, each in a memory cgroup of 256 MiB; layers of up to 64 MiB go through all of them",
    abort: "the kernel kills a replica for its memory twice: the bound is then too small for this load",
    recovery: "memory stays below the bound all the time; the killed replica is ready within 90 s and fills itself \
               below the same bound",
    rollback: "the cgroups are removed with it. On a cluster of one's own: raise the limit and start the replica \
               again",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I9],
    fires: &["memory bound", "kill -9"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Root,
    body: |run| Box::pin(body(run)),
};

const BOUND: u64 = 256 << 20;

async fn body(run: &mut Run) -> Result<()> {
    run.bounds.memory_max = BOUND;
    run.start_prepared(ClusterOptions::default(), |cluster| {
        (0..3).try_for_each(|index| cluster.bound_memory(index, BOUND))
    })
    .await?;
    let bound = run.faults.begin("memory bound", "256 MiB for each replica");
    let options = LoadOptions::images_and_tags(3, 64 << 20);
    run.load(LoadOptions { pushers: 4, pullers: 3, ..options }).await?;
    for _ in 0..run.of(1, 6) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        run.kill(victim)?;
        run.work().await?;
        run.restart_all().await?;
        run.work().await?;
    }
    run.faults.end(bound);
    let mut peaks = Vec::new();
    for index in 0..3 {
        let memory = run.cluster()?.memory(index)?;
        peaks.push(memory.peak >> 20);
        let group = run.cluster()?.memory_group(index)?;
        ensure!(group.kills()? == 0, "replica {index} was killed for its memory");
        ensure_shown!(group.peak()? <= BOUND, "the bound of replica {index} was none");
    }
    run.figure("resident at most, MiB", peaks);
    Ok(())
}
