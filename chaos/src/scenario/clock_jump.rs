//! Row 22: a replica's wall clock is wrong, and becomes wrong in another way.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    cluster::Cluster,
    launch::Launch,
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-jump",
    rows: &[22],
    hypothesis: "no promise hangs on the wall clock: a replica, even the leader, may be ten minutes off, and may jump \
                 forth and back",
    fault: "libfaketime moves the wall clock of a follower, and then of the leader, by +10 min, -10 min, and back, \
            while they run",
    given: "three replicas with the right time follow one leader; each reads the wall clock through libfaketime, \
            which shows the true one",
    abort: "the leader changes with every jump, a replica ends, or a token or certificate is refused that is still \
            good for an hour",
    recovery: "nothing has to recover: writes go on through every jump, and the log shows the right time a second \
               after the last one",
    rollback: "the machine's own clock is never touched. On a cluster of one's own: start the replica without \
               libfaketime, or let its host's time service set the clock",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["clock of a follower", "clock of the leader"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const MINUTES: i64 = 10 * 60;
/// A clock whose jump was asked for is at most so far from where it should be.
const TOLERANCE: i64 = 60;
const DAY: i64 = 24 * 60 * 60;

async fn body(run: &mut Run) -> Result<()> {
    run.start_prepared(ClusterOptions::default(), with_clock).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 8 << 20))).await?;
    for round in 0..run.of(1, 5) {
        for whose in ["clock of a follower", "clock of the leader"] {
            let leader = run.leader().await?;
            let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
            let victim = if whose == "clock of the leader" { leader } else { run.choose(&others)? };
            let first = if round % 2 == 0 { MINUTES } else { -MINUTES };
            for offset in [first, -first, 0] {
                let file = clock_file(run.cluster()?.folder(), victim);
                fs::write(&file, format!("{offset:+}\n"))?;
                wait_for_clock(run, victim, offset).await.or_not_shown()?;
                let fault =
                    run.faults.begin(whose, &format!("replica {victim} is {offset:+} s off"));
                let everybody: Vec<usize> = (0..3).collect();
                run.writes_resume(&everybody).await?;
                run.work().await?;
                run.faults.end(fault);
            }
        }
    }
    Ok(())
}

/// Gives each replica a wall clock of its own, which [`clock_file`] moves.
pub(super) fn with_clock(cluster: &mut Cluster) -> Result<()> {
    for index in 0..cluster.len() {
        fs::write(clock_file(cluster.folder(), index), "+0\n")?;
        let launch = clock_launch(cluster.folder(), index)?;
        cluster.set_launch(index, launch);
    }
    Ok(())
}

/// Lets a replica read the clock that [`with_clock`] has given it.
pub(super) fn clock_launch(folder: &Path, index: usize) -> Result<Launch> {
    let library = library().or_not_shown()?;
    Ok(Launch::default()
        .with("LD_PRELOAD", &library.display().to_string())
        .with("FAKETIME_TIMESTAMP_FILE", &clock_file(folder, index).display().to_string())
        // The file is read again every second, and only the wall clock is touched.
        .with("FAKETIME_CACHE_DURATION", "1")
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with("FAKETIME_DONT_RESET", "1"))
}

pub(super) fn clock_file(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("clock-{index}"))
}

/// Where Debian puts libfaketime.
fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("read /usr/lib")?;
    let found = folders
        .flatten()
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file());
    found.context("no libfaketime on this machine: run chaos/setup.sh, which installs it")
}

/// Waits until a replica believes in its new time. Its log says so: the load makes it write a line all the time.
async fn wait_for_clock(run: &mut Run, index: usize, offset: i64) -> Result<()> {
    let replica = run.cluster()?.replica(index);
    wait_until("the clock has jumped", HEAL_DEADLINE, || async {
        let log = replica.log_tail();
        let shown = log.lines().rev().find_map(time_of_day).context("no line with a time")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wanted = i64::try_from(now.as_secs())? + offset;
        let distance = (shown - wanted).rem_euclid(DAY);
        let distance = distance.min(DAY - distance);
        ensure!(distance <= TOLERANCE, "it is {distance} s from where it should be");
        Ok(())
    })
    .await
}

/// Seconds since midnight, of a line of a log: `2026-11-22T08:49:37.453301Z  INFO …`.
fn time_of_day(line: &str) -> Option<i64> {
    let (time, _) = line.split_once('T')?.1.split_once('.')?;
    let mut seconds = 0;
    for part in time.split(':') {
        seconds = seconds * 60 + part.parse::<i64>().ok()?;
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_log_line_is_read() {
        let line = "2026-11-22T08:49:37.453301Z  INFO tercet::audit: write";
        assert_eq!(time_of_day(line), Some(8 * 3_600 + 49 * 60 + 37));
        assert_eq!(time_of_day("yesterday"), None);
    }
}
