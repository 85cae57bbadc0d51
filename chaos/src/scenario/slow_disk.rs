//! Row 17: a disk that is slow and not dead.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Lane, Needs, Run, Scenario};
use crate::{
    daemon::Daemon,
    launch::Launch,
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    tools::Tool,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow-disk",
    rows: &[17],
    hypothesis: "a replica whose every fsync takes half a second does not slow the others down for long: a slow follower \
                 is left behind, a slow leader hands over, and the metrics say which one it is",
    fault: "500 ms before every fsync of a follower, then of the leader",
    given: "three replicas follow one leader; a follower is started with 500 ms before every fsync; later, when it is \
            well again, the disk of the leader gets as slow while it leads",
    abort: "writes stop for a minute, or leadership goes back and forth between the same two replicas",
    recovery: "a slow follower is left behind without harm; a slow leader hands over within 90 s and writes go on \
               within 10 s of that",
    rollback: "on a cluster of one's own: hand leadership to another replica with `tercet member transfer`, then \
               stop the slow one",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["slow fsync"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const DELAY_MICROSECONDS: u32 = 500_000;
/// What an operator sees of the disk.
const FSYNC_METRIC: &str = "tercet_raft_fsync_microseconds";
/// What a leader says that steps aside.
const HANDED_OVER: &str = "this replica's disk is slow: handing leadership over";
/// How long a slow leader may take to notice and to hand over.
const STEP_ASIDE_MAX: Duration = Duration::from_secs(90);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 1 << 20))).await?;
    for _ in 0..run.of(1, 5) {
        let leader = run.leader().await?;
        slow_follower(run, (leader + 1) % 3).await?;
        let leader = run.leader().await?;
        slow_leader(run, leader).await?;
    }
    Ok(())
}

/// A follower that begins on a slow disk, and works on it.
async fn slow_follower(run: &mut Run, victim: usize) -> Result<()> {
    let strace = Tool::find("strace").or_not_shown()?;
    let strace = strace.path().display().to_string();
    run.kill(victim)?;
    let inject = inject();
    let only = "--trace=fsync,fdatasync";
    let around =
        [&strace, "--daemonize", "-f", "--seccomp-bpf", only, "-qqq", "-o", "/dev/null", &inject];
    run.cluster()?.set_launch(victim, Launch::default().through(&around));
    run.restart_all().await?;
    let fault = run.faults.begin("slow fsync", &format!("replica {victim}"));
    run.progress(100).await?;
    is_reported(run, victim).await?;
    run.kill(victim)?;
    run.faults.end(fault);
    run.cluster()?.set_launch(victim, Launch::default());
    run.restart_all().await
}

/// A disk that gets slow under the replica that leads. Leadership cannot be handed to one whose disk is slow
/// already: it does not write its own vote down before the others elect somebody else.
async fn slow_leader(run: &mut Run, victim: usize) -> Result<()> {
    let pid = run.cluster()?.replica(victim).pid().context("the leader runs")?;
    let strace = attach(pid, &run.cluster()?.folder().join("strace.log")).await?;
    let fault = run.faults.begin("slow fsync", &format!("the leader, replica {victim}"));
    let began = std::time::Instant::now();
    let cluster = &*run.cluster()?;
    wait_until("a replica with a good disk leads", STEP_ASIDE_MAX, || async {
        let leader = cluster.leader().await?;
        ensure!(leader != victim, "the slow replica {victim} leads");
        Ok(())
    })
    .await?;
    let took = began.elapsed();
    let said = run.cluster()?.replica(victim).log_text().contains(HANDED_OVER);
    run.figure("the slow leader said why it handed over", said);
    run.faults.note(&format!("it was handed on after {took:?}"));
    run.writes_resume(&[0, 1, 2]).await?;
    run.progress(100).await?;
    strace.stop().await?;
    run.faults.end(fault);
    run.restart_all().await
}

/// Slows the disk of a process that runs, until the daemon is stopped.
async fn attach(pid: u32, log: &Path) -> Result<Daemon> {
    let mut command = Command::new(Tool::find("strace").or_not_shown()?.path());
    command.args(["-f", "-qqq", "-o", "/dev/null", &inject(), "-p", &pid.to_string()]);
    Daemon::start_until("strace", command, log, || async {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?;
        for thread in threads {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            ensure!(!status.contains("TracerPid:\t0\n"), "not all threads are traced");
        }
        Ok(())
    })
    .await
}

fn inject() -> String {
    format!("--inject=fsync,fdatasync:delay_enter={DELAY_MICROSECONDS}")
}

/// The metric that an operator's alarm asks tells the slow replica from the others.
async fn is_reported(run: &mut Run, victim: usize) -> Result<()> {
    let cluster = &*run.cluster()?;
    wait_until("the metrics name the slow replica", STEP_ASIDE_MAX, || async {
        for index in 0..cluster.len() {
            let page = cluster.ops_text(index, "/metrics").await?;
            let fsync = metric(&page, FSYNC_METRIC).context("no metric of it")?;
            let slow = fsync >= f64::from(DELAY_MICROSECONDS);
            ensure!(slow == (index == victim), "{FSYNC_METRIC} of replica {index} is {fsync}");
        }
        Ok(())
    })
    .await?;
    run.faults.note(&format!("the metrics name replica {victim} as the slow one"));
    Ok(())
}

fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
