//! Row 21: a replica's disk is what it was some time ago.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Lane, Needs, Run, Scenario, disks::Start, run::HEAL_DEADLINE};
use crate::{
    files::copy_folder,
    not_shown::{OrNotShown as _, ensure_shown},
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "stale-disk",
    rows: &[21],
    hypothesis: "one replica on an old copy of its own disk does no harm: the others, who have seen more of it, find it out; \
                 nothing that was acknowledged is lost, and nobody is told anything older",
    fault: "a copy of one replica's data directory is put back after the cluster has gone on for a while, as a restored snapshot of \
            a volume is; one replica at a time",
    given: "three replicas are ready and take writes; no other replica has lost or forgotten anything, and the two others run \
            and remember",
    abort: "a read that claims to be fresh is older than one before it, or a second replica has to be restored",
    recovery: "the replica refuses to start (TERCET-M13), and is whole within 90 s of a start on an empty disk \
               (300 s in the full form, which holds gigabytes)",
    rollback: "on a cluster of one's own: stop the replica, wipe its data directory, start it: it joins as a new \
               member",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["stale disk"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// Until an empty disk has all that the full form has pushed by then, which is gigabytes, while more comes.
const EMPTY_DEADLINE: Duration = Duration::from_secs(300);
/// What a replica says whose disk has forgotten something.
const REFUSAL: &str = "TERCET-M13";
/// What it says if somebody who may know does not answer.
const SILENCE: &str = "no answer to what this replica has confirmed";

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 1 << 20))).await?;
    for round in 0..run.of(2, 8) {
        run.work().await?;
        let leader = run.leader().await?;
        // The leader's own disk is the worst one to be old.
        let victim = if round % 2 == 0 { leader } else { run.choose(&[0, 1, 2])? };
        let data_dir = run.cluster()?.replica(victim).data_dir.clone();
        let copy = data_dir.with_extension("copy");
        run.kill(victim)?;
        copy_folder(&data_dir, &copy)?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let then = run.status(victim).await?;
        // In the full form so long that the log no longer reaches back to the copy now and then.
        run.last(
            run.of(Duration::from_secs(2), Duration::from_secs(60)),
            run.of(Duration::from_secs(4), Duration::from_secs(180)),
        )
        .await;
        // A term more, so that the copy has forgotten a vote, too.
        let leader = run.leader().await?;
        run.kill(leader)?;
        let standing: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        run.writes_resume(&standing).await?;
        run.restart_all().await?;
        run.whole_again(victim).await?;
        let now = run.status(victim).await?;

        run.kill(victim)?;
        let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        // At once: the last writes may be on the victim and on one other, so its vote would be enough to lose them.
        run.cluster()?.wipe(victim)?;
        copy_folder(&copy, &data_dir)?;
        std::fs::remove_dir_all(&copy).context("remove the copy").or_not_shown()?;
        run.faults.injected(
            "stale disk",
            &format!(
                "replica {victim}: it has applied {} in term {}, and its copy {} in term {}",
                now.applied, now.term, then.applied, then.term
            ),
        );
        run.cluster()?.restart(victim)?;
        let start = run.started(victim).await?;
        run.faults.note(&format!("replica {victim} on its old disk: {start:?}"));
        for index in &others {
            // Not that it died of the old disk of another one.
            run.lives(*index).await?;
        }
        run.writes_resume(&others).await?;
        let said = run.cluster()?.replica(victim).log_text();
        ensure_shown!(
            start == Start::Refused || !said.contains(SILENCE),
            "nobody answered in time"
        );
        ensure!(said.contains(REFUSAL), "replica {victim} was not found out: {start:?}");
        run.cluster()?.wipe(victim)?;
        run.restart_all().await?;
        let longest = run.of(HEAL_DEADLINE, EMPTY_DEADLINE);
        run.cluster()?.wait_caught_up(victim, longest).await?;
        run.whole_again(victim).await?;
    }
    Ok(())
}
