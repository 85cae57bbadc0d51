//! Row 25: one replica after the other gets another version, forth and back.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    launch::Launch,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rolling-upgrade",
    rows: &[25],
    hypothesis: "replicas of two versions work together; nothing that the former one does not understand is written until the \
                 last one is upgraded; until then each may go back, and after that the former version refuses to start",
    fault: "one replica after the other is restarted under load as another version: the same program, told by a variable to \
            write only what the former feature level knows. Some forth and back again, then all forth, then one back. (That \
            data which a former program really wrote is read is shown by the suite, in `upgrade.rs`)",
    given: "three replicas of the former version are ready and take writes",
    abort: "the feature level rises while a replica of the former version runs, or a replica of either version misreads \
            something",
    recovery: "each replica is ready within 90 s of its restart, and the others take writes meanwhile; the feature level rises \
               within 90 s of the last upgrade",
    rollback: "on a cluster of one's own: until the level has risen, restart as the former version; after that only forward, \
               or from a backup",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["upgrade", "step back", "refused step back"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// Makes a binary behave as the former version.
const FORMER: (&str, &str) = ("TERCET_TEST_FEATURE_LEVEL", "1");
const FORMER_LEVEL: u32 = 1;
/// What `sysexits` calls data of a wrong format.
const EX_DATAERR: i32 = 65;
const DRAIN_MAX: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Former,
    Current,
}

impl Version {
    fn launch(self) -> Launch {
        match self {
            Self::Former => Launch::default().with(FORMER.0, FORMER.1),
            Self::Current => Launch::default(),
        }
    }
}

async fn body(run: &mut Run) -> Result<()> {
    run.start_prepared(ClusterOptions::default(), |cluster| {
        for index in 0..cluster.len() {
            cluster.set_launch(index, Version::Former.launch());
        }
        Ok(())
    })
    .await?;
    level(run, FORMER_LEVEL).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    // Forth and back, as often as somebody may hesitate.
    for _ in 0..run.of(1, 6) {
        let first = run.choose(&[0, 1, 2])?;
        let second = (first + 1) % 3;
        for (index, version) in [
            (first, Version::Current),
            (second, Version::Current),
            (first, Version::Former),
            (second, Version::Former),
        ] {
            become_version(run, index, version).await?;
            level(run, FORMER_LEVEL).await?;
            run.progress(20).await?;
        }
    }
    // For good.
    let first = run.choose(&[0, 1, 2])?;
    for index in [first, (first + 1) % 3, (first + 2) % 3] {
        level(run, FORMER_LEVEL).await?;
        become_version(run, index, Version::Current).await?;
        run.progress(20).await?;
    }
    let cluster = &*run.cluster()?;
    wait_until("the feature level rises", HEAL_DEADLINE, || async {
        for index in 0..cluster.len() {
            let found = cluster.status(index).await?.feature_level;
            ensure!(found > FORMER_LEVEL, "replica {index} is at feature level {found}");
        }
        Ok(())
    })
    .await?;
    run.progress(40).await?;
    refused(run).await
}

/// A clean restart as another version, while the other two take writes.
async fn become_version(run: &mut Run, index: usize, version: Version) -> Result<()> {
    let kind = match version {
        Version::Former => "step back",
        Version::Current => "upgrade",
    };
    let restart = run.faults.begin(kind, &format!("replica {index}"));
    run.cluster()?.term(index)?;
    let status = run.cluster()?.wait_exit(index, DRAIN_MAX).await?;
    ensure!(status.success(), "replica {index} drained and ended with {status}");
    run.cluster()?.set_launch(index, version.launch());
    run.cluster()?.restart(index)?;
    run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    run.faults.end(restart);
    Ok(())
}

/// Fails unless the cluster writes only what this level understands.
async fn level(run: &mut Run, wanted: u32) -> Result<()> {
    for index in 0..3 {
        let found = run.status(index).await?.feature_level;
        ensure!(found == wanted, "replica {index} is at feature level {found} and not {wanted}");
    }
    Ok(())
}

/// The way back is closed: the former version says so, and changes nothing.
async fn refused(run: &mut Run) -> Result<()> {
    let victim = run.choose(&[0, 1, 2])?;
    run.cluster()?.term(victim)?;
    run.cluster()?.wait_exit(victim, DRAIN_MAX).await?;
    run.cluster()?.set_launch(victim, Version::Former.launch());
    run.cluster()?.restart(victim)?;
    let status = run.cluster()?.wait_exit(victim, HEAL_DEADLINE).await?;
    let log = run.cluster()?.replica(victim).log_text();
    let said = log.lines().last().unwrap_or_default().to_owned();
    ensure!(status.code() == Some(EX_DATAERR), "the former version ended with {status}: {said}");
    run.faults.injected("refused step back", &format!("replica {victim}: {said}"));
    run.cluster()?.set_launch(victim, Version::Current.launch());
    run.restart_all().await?;
    run.whole_again(victim).await
}
