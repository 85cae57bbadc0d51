//! Row 27: two processes want the same data.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "data-lock",
    rows: &[27],
    hypothesis: "one data directory has one process, and belongs to one replica",
    fault: "a second process is started on the data directory of a running replica; then a replica is started with \
            the volume of another one, that runs or was killed",
    given: "three replicas run, each on a data directory of its own; images are pushed and tags move",
    abort: "two processes run on one data directory, for however short a time: stop both and compare their logs \
            before anything else",
    recovery: "the wrong process ends within seconds and names the reason; the right one never notices and needs no \
               restart",
    rollback: "on a cluster of one's own: stop the second process, and give each replica its own volume",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5],
    fires: &["second process", "volume of a running replica", "volume of a killed replica"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// Refused is refused at once, not after a start that looks good for a while.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(30);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, 64 << 10)).await?;
    for _ in 0..run.of(1, 5) {
        let victim = run.choose(&[0, 1, 2])?;
        let other = (victim + 1) % 3;
        let said = refused(run, victim, victim).await?;
        ensure!(said.contains("locked"), "it does not say why: {said}");
        run.faults.injected("second process", &last_line(&said));

        // The other replica is down; its container comes up with the wrong volume.
        run.kill(other)?;
        let said = refused(run, other, victim).await?;
        ensure!(said.contains("locked"), "it does not say why: {said}");
        run.faults.injected("volume of a running replica", &last_line(&said));
        run.work().await?;
        run.restart_all().await?;
        run.cluster()?.wait_caught_up(other, HEAL_DEADLINE).await?;

        // Both are down, so that no lock helps: the volume says whose it is.
        run.kill(other)?;
        run.kill(victim)?;
        let said = refused(run, other, victim).await?;
        let owner = run.cluster()?.replica(victim).name.clone();
        ensure!(said.contains(&owner), "it does not say whose data that is: {said}");
        run.faults.injected("volume of a killed replica", &last_line(&said));
        run.restart_all().await?;
        run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
    }
    Ok(())
}

/// Starts the replica `who` with the data of `whose`, which must end by itself. Returns what it said.
async fn refused(run: &mut Run, who: usize, whose: usize) -> Result<String> {
    let cluster = run.cluster()?;
    let config = cluster.replica(who).config.display().to_string();
    let data = cluster.replica(whose).data_dir.display().to_string();
    let start = ["serve", "--config", &config, "--data-dir", &data];
    let refusal = cluster.command_beside(who);
    let refusal = refusal.run_to_fail(&start);
    crate::wait::within("the start is refused", REFUSAL_DEADLINE, refusal).await
}

fn last_line(said: &str) -> String {
    said.lines().last().unwrap_or_default().to_owned()
}
