//! Row 28: a replica that the kernel would kill if it wanted much.

use anyhow::{Result, ensure};

use super::{Needs, Run, Scenario};
use crate::{
    memory_group::MemoryGroup,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "little-memory",
    rows: &[28],
    hypothesis: "256 MiB of memory, page cache included, are enough: nobody is killed for want of more",
    fault: "each replica lives in a memory cgroup of 256 MiB, under pushes and pulls of layers up to 64 MiB; one is killed \
            and fills itself within its bound",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I9],
    fires: &["memory bound", "kill -9"],
    floor_per_second: 2.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const BOUND: u64 = 256 << 20;

async fn body(run: &mut Run) -> Result<()> {
    let groups: Vec<MemoryGroup> =
        (0..3).map(|_| MemoryGroup::new(BOUND)).collect::<Result<_>>()?;
    run.start_prepared(ClusterOptions::default(), |cluster| {
        for (index, group) in groups.iter().enumerate() {
            cluster.set_launch(index, group.launch());
        }
        Ok(())
    })
    .await?;
    run.faults.injected("memory bound", "256 MiB for each replica");
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
    let mut peaks = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let memory = run.cluster()?.memory(index)?;
        peaks.push(memory.peak >> 20);
        ensure!(group.kills()? == 0, "replica {index} was killed for its memory");
        ensure!(group.peak()? <= BOUND, "the bound of replica {index} was none");
    }
    run.figure("resident at most, MiB", peaks);
    // The groups have to outlive the processes.
    run.settle().await
}
