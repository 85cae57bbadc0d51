//! Row 17: a disk that is slow and not dead.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Needs, Run, Scenario};
use crate::{
    launch::Launch,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow-disk",
    rows: &[17],
    hypothesis: "a replica whose every fsync takes half a second does not slow the others down for long: a slow follower \
                 is left behind, a slow leader hands over",
    fault: "500 ms before every fsync of a follower, then of the leader",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["slow fsync"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const DELAY_MICROSECONDS: u32 = 500_000;
/// How long a slow leader may take to notice and to hand over.
const STEP_ASIDE_MAX: Duration = Duration::from_secs(90);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let load = LoadOptions::images_and_tags(3, run.of(64 << 10, 1 << 20));
    run.load(load).await?;
    for _ in 0..run.of(1, 5) {
        let leader = run.leader().await?;
        let victim = (leader + 1) % 3;
        slow(run, victim).await?;
        run.progress(100).await?;
        // Now it is to lead; it keeps up with nothing but silence.
        run.stop_load().await?;
        run.cluster()?.wait_caught_up(victim, STEP_ASIDE_MAX).await?;
        let name = run.cluster()?.replica(victim).name.clone();
        run.cluster()?.operate(leader, &["member", "transfer", &name, "--yes"]).await?;
        run.faults.note(&format!("leadership is handed to the slow replica {victim}"));
        let began = std::time::Instant::now();
        run.load(load).await?;
        let cluster = &*run.cluster()?;
        wait_until("a replica with a good disk leads", STEP_ASIDE_MAX, || async {
            let leader = cluster.leader().await?;
            ensure!(leader != victim, "the slow replica {victim} leads");
            Ok(())
        })
        .await?;
        let took = began.elapsed();
        run.faults.note(&format!("it was handed on after {took:?}"));
        run.writes_resume(&[0, 1, 2]).await?;
        run.progress(100).await?;
        run.kill(victim)?;
        run.cluster()?.set_launch(victim, Launch::default());
        run.restart_all().await?;
    }
    Ok(())
}

async fn slow(run: &mut Run, victim: usize) -> Result<()> {
    run.kill(victim)?;
    let inject = format!("--inject=fsync,fdatasync:delay_enter={DELAY_MICROSECONDS}");
    let strace =
        ["strace", "--daemonize", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", &inject];
    run.cluster()?.set_launch(victim, Launch::default().through(&strace));
    run.restart_all().await?;
    run.faults.injected("slow fsync", &format!("replica {victim}"));
    Ok(())
}
