//! Row 22: a replica's wall clock is wrong, and becomes wrong in another way.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use super::{
    Lane, Length, Needs, Run, Scenario,
    run::HEAL_DEADLINE,
    tokens::{self, Tokens},
};
use crate::{
    cluster::Cluster,
    launch::Launch,
    not_shown::{OrNotShown as _, ensure_shown},
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-jump",
    rows: &[22],
    hypothesis: "no promise hangs on the wall clock: a replica, even the leader, may be an hour off, and may jump \
                 forth and back; certificates and tokens alone are judged by it, tokens with a leeway of a minute",
    fault: "libfaketime moves the wall clock of a follower, and then of the leader, by +30 s, +1 h, -1 h, and back, \
            while they run; the follower is killed and started while it is an hour off. Every time each replica \
            issues a token and is asked about all there are. The full form also takes -30 s, and a clock that runs \
            5 % fast, and 5 % slow",
    given: "three replicas with the right time, HTTPS and users follow one leader; each reads the wall clock through \
            libfaketime, which shows the true one; on hosts of their own they talk TLS to each other",
    abort: "the leader changes with every jump, a replica ends, a certificate is refused, a replica with the right \
            clock refuses a token of another one, or a refusal is anything but a 401 that leads to a new token",
    recovery: "nothing has to recover: writes go on through every jump. While a clock is further off than the leeway, \
               its replica and the others refuse each other's tokens and take their own; once it is right, all take \
               all new ones",
    rollback: "the machine's own clock is never touched. On a cluster of one's own: start the replica without \
               libfaketime, or let its host's time service set the clock",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &[FOLLOWER, LEADER, "kill -9", "token from the future", "token past its end"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const FOLLOWER: &str = "clock of a follower";
const LEADER: &str = "clock of the leader";
/// Within the leeway: nobody notices.
const LITTLE: i64 = 30;
const HOUR: i64 = 60 * 60;
/// A clock whose jump was asked for is at most so far from where it should be.
const TOLERANCE: i64 = 5;
/// So far goes a clock that drifts, at least, while it is watched.
const DRIFT: i64 = 3;
/// Of work, until it has.
const SHIFTS_MAX: usize = 100;
const DAY: i64 = 24 * 60 * 60;

async fn body(run: &mut Run) -> Result<()> {
    let life = tokens::LIFE_S.to_string();
    let options = ClusterOptions::secured().setting("access", "token_seconds", &life);
    run.start_prepared(options, with_clock).await?;
    let mut tokens = Tokens::start(run).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 8 << 20))).await?;
    for round in 0..run.of(1, 5) {
        let sign = if round % 2 == 0 { 1 } else { -1 };
        for whose in [FOLLOWER, LEADER] {
            jump_forth_and_back(run, &mut tokens, whose, sign).await?;
        }
    }
    if run.length == Length::Full {
        for rate in [1.05, 0.95] {
            drift(run, &mut tokens, rate).await?;
        }
        tokens.have_ended()?;
    }
    Ok(())
}

async fn jump_forth_and_back(
    run: &mut Run,
    tokens: &mut Tokens,
    whose: &str,
    sign: i64,
) -> Result<()> {
    let leader = run.leader().await?;
    let victim = if whose == LEADER { leader } else { other_than(run, leader)? };
    for offset in [sign * LITTLE, sign * HOUR, -sign * HOUR, 0] {
        set_clock(run, victim, &format!("{offset:+}"))?;
        wait_for_clock(run, victim, offset).await.or_not_shown()?;
        tokens.clock_is(victim, offset);
        let fault = run.faults.begin(whose, &format!("replica {victim} is {offset:+} s off"));
        let everybody: Vec<usize> = (0..3).collect();
        run.writes_resume(&everybody).await?;
        tokens.judge(run).await?;
        if whose == FOLLOWER && offset == -sign * HOUR {
            restart(run, victim).await?;
            tokens.judge(run).await?;
        }
        if offset != sign * LITTLE {
            run.work().await?;
        }
        run.faults.end(fault);
    }
    Ok(())
}

/// A replica that starts judges its own certificate by its clock, and those of the others: no connection is left.
async fn restart(run: &mut Run, index: usize) -> Result<()> {
    run.kill(index)?;
    run.restart_all().await
}

/// A clock that runs too fast or too slow, and then is right again.
async fn drift(run: &mut Run, tokens: &mut Tokens, rate: f64) -> Result<()> {
    let leader = run.leader().await?;
    let victim = if run.toss() { leader } else { other_than(run, leader)? };
    set_clock(run, victim, &format!("+0 x{rate}"))?;
    let fault = run.faults.begin("clock that drifts", &format!("replica {victim}, x{rate}"));
    let first = wait_for_drift(run, victim).await.or_not_shown()?;
    let mut now = first;
    for _ in 0..SHIFTS_MAX {
        run.work().await?;
        now = ahead(run, victim).or_not_shown()?;
        tokens.clock_is(victim, now);
        tokens.judge(run).await?;
        if (now - first).abs() >= DRIFT {
            break;
        }
    }
    ensure_shown!(
        (now - first).abs() >= DRIFT,
        "a clock at x{rate} went from {first} s to {now} s"
    );
    run.faults.note(&format!("replica {victim} went from {first:+} s to {now:+} s off"));
    set_clock(run, victim, "+0 x1")?;
    wait_for_clock(run, victim, 0).await.or_not_shown()?;
    tokens.clock_is(victim, 0);
    run.faults.end(fault);
    tokens.judge(run).await
}

fn other_than(run: &mut Run, leader: usize) -> Result<usize> {
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    run.choose(&others)
}

/// Tells libfaketime, in its own words, what a replica's clock shows. A rate counts from the start of the process.
fn set_clock(run: &mut Run, index: usize, words: &str) -> Result<()> {
    Ok(fs::write(clock_file(run.cluster()?.folder(), index), format!("{words}\n"))?)
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
        let distance = (ahead_in(&replica.log_tail())? - offset).abs();
        ensure!(distance <= TOLERANCE, "it is {distance} s from where it should be");
        Ok(())
    })
    .await
}

/// Waits until a replica's clock shows its new rate, and tells how far ahead it is then: with the time that the process has
/// run it has made a jump.
async fn wait_for_drift(run: &mut Run, index: usize) -> Result<i64> {
    let replica = run.cluster()?.replica(index);
    wait_until("the clock drifts", HEAL_DEADLINE, || async {
        let ahead = ahead_in(&replica.log_tail())?;
        ensure!(ahead.abs() >= DRIFT, "it is {ahead:+} s off");
        Ok(ahead)
    })
    .await
}

/// How far ahead of the right time a replica's clock is, in seconds.
fn ahead(run: &mut Run, index: usize) -> Result<i64> {
    ahead_in(&run.cluster()?.replica(index).log_tail())
}

/// The same by the last line of its log; no clock is half a day off here.
fn ahead_in(log: &str) -> Result<i64> {
    let shown = log.lines().rev().find_map(time_of_day).context("no line with a time")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let ahead = (shown - i64::try_from(now.as_secs())?).rem_euclid(DAY);
    Ok(if ahead > DAY / 2 { ahead - DAY } else { ahead })
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
