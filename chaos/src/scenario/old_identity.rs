//! Row 19: somebody restores what was thrown away.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    files::copy_folder,
    not_shown::OrNotShown as _,
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
    given: "three replicas hold everything; one of them has been replaced after the loss of its disk, and a copy of \
            its old disk is at hand",
    abort: "the membership has two entries for one replica, or a vote of the old id is counted",
    recovery: "the old identity ends with an error, the whole old disk stays outside with `TERCET-M01`; with an \
               empty disk the replica is whole again within 90 s",
    rollback: "on a cluster of one's own: wipe the data folder of the refused replica and let it join anew",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["old identity", "old disk"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// What a refusal begins with.
const RETIRED: &str = "TERCET-M01";

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 1 << 20))).await?;
    for _ in 0..run.of(1, 5) {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        run.kill(victim)?;
        let data_dir = run.cluster()?.replica(victim).data_dir.clone();
        let old = data_dir.with_extension("old");
        copy_folder(&data_dir, &old)?;
        run.cluster()?.wipe(victim)?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let new_id = run.status(victim).await?.node_id;

        // The identity alone: there is no log that goes with it.
        run.kill(victim)?;
        run.cluster()?.wipe(victim)?;
        fs::create_dir_all(&data_dir).or_not_shown()?;
        fs::copy(old.join("identity.json"), data_dir.join("identity.json")).or_not_shown()?;
        run.faults.injected("old identity", &format!("replica {victim}"));
        run.cluster()?.restart(victim)?;
        let status = run.cluster()?.wait_exit(victim, Duration::from_secs(30)).await?;
        ensure!(!status.success(), "replica {victim} started with an identity and no log");

        // The whole disk: it starts, and nobody lets it in.
        run.cluster()?.wipe(victim)?;
        copy_folder(&old, &data_dir)?;
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
        let members = run.status(other).await?.members;
        let known = members.iter().filter(|member| member.node_id == new_id).count();
        ensure!(known == 1 && members.len() == 3, "the membership has changed: {members:?}");

        run.kill(victim)?;
        run.cluster()?.wipe(victim)?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        fs::remove_dir_all(&old).or_not_shown()?;
    }
    Ok(())
}
