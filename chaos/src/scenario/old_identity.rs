//! Row 19: somebody restores what was thrown away.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};

use super::{Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "old-identity",
    rows: &[19],
    hypothesis: "an id that was replaced never comes back: not by its identity file alone, and not by a whole old disk",
    fault: "a replica is replaced after the loss of its disk; then its old identity file is restored by hand, then its \
            whole old data directory",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["old identity", "old disk"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// What a refusal begins with.
const RETIRED: &str = "TERCET-M01";

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::tags(3)).await?;
    for _ in 0..run.of(1, 5) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        run.kill(victim)?;
        let data_dir = run.cluster()?.replica(victim).data_dir.clone();
        let old = data_dir.with_extension("old");
        copy(&data_dir, &old)?;
        run.cluster()?.wipe(victim)?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let new_id = run.cluster()?.status(victim).await?.node_id;

        // The identity alone: there is no log that goes with it.
        run.kill(victim)?;
        run.cluster()?.wipe(victim)?;
        fs::create_dir_all(&data_dir)?;
        fs::copy(old.join("identity.json"), data_dir.join("identity.json"))?;
        run.faults.injected("old identity", &format!("replica {victim}"));
        run.cluster()?.restart(victim)?;
        let status = run.cluster()?.wait_exit(victim, Duration::from_secs(30)).await?;
        ensure!(!status.success(), "replica {victim} started with an identity and no log");

        // The whole disk: it starts, and nobody lets it in.
        run.cluster()?.wipe(victim)?;
        copy(&old, &data_dir)?;
        run.faults.injected("old disk", &format!("replica {victim}"));
        run.cluster()?.restart(victim)?;
        let cluster = &*run.cluster()?;
        wait_until("it is refused and says so", HEAL_DEADLINE, || async {
            let code = cluster.ops_status(victim, "/readyz").await?;
            ensure!(code == 503, "it answers {code} on /readyz");
            let log = cluster.replica(victim).log_text();
            ensure!(log.contains(RETIRED), "its log does not name {RETIRED}");
            Ok(())
        })
        .await?;
        run.progress(50).await?;
        let other = (victim + 1) % 3;
        let members = run.cluster()?.status(other).await?.members;
        let known = members.iter().filter(|member| member.node_id == new_id).count();
        ensure!(known == 1 && members.len() == 3, "the membership has changed: {members:?}");

        run.kill(victim)?;
        run.cluster()?.wipe(victim)?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        fs::remove_dir_all(&old)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
    Ok(())
}
