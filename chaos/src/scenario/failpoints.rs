//! Row 10: the process dies between any two steps from a client's bytes to its answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::{RngExt as _, seq::SliceRandom as _};

use super::{Needs, Run, Scenario};
use crate::{
    launch::Launch,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "failpoints",
    rows: &[10],
    hypothesis: "a replica may die at any step between the first byte and the answer: what was acknowledged is \
                 there, what was not is whole or not there, and the replica starts again on what it left",
    fault: "the process aborts at a step of the blob store, the push, the Raft log or the state machine, then a restart; \
            again and again, at other steps",
    invariants: &[
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I8,
    ],
    fires: &["abort"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// Every push reaches these, on the replica that serves it or on its other holders.
const BLOBS: &[&str] = &[
    "blob.after_write",
    "blob.before_file_sync",
    "blob.after_file_sync",
    "blob.before_rename",
    "blob.after_rename",
    "blob.after_dir_sync",
];
/// Only the replica that a client talks to reaches these.
const PUSHES: &[&str] = &[
    "push.blob_published",
    "push.before_blob_commit",
    "push.after_blob_commit",
    "push.before_manifest",
    "push.after_manifest",
];
/// Every command reaches these, on every replica.
const COMMANDS: &[&str] = &[
    "raft_log.entries_written",
    "raft_log.before_sync",
    "raft_log.after_sync",
    "state.before_commit",
    "state.after_commit",
];
/// A vote is written in an election only.
const VOTE: &str = "raft_log.vote_written";
/// In every build that has them.
const MARK: &[u8] = b" reached: aborting";
/// How long a step may take to be reached.
const REACHED_MAX: Duration = Duration::from_secs(60);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let program = std::fs::read(run.cluster()?.binary())?;
    ensure!(
        program.windows(MARK.len()).any(|bytes| bytes == MARK),
        "this tercet has no failpoints: build it with `cargo test --workspace --no-run`"
    );
    drop(program);
    let layer_max = run.of(128 << 10, 8 << 20);
    run.load(LoadOptions::images_and_tags(3, layer_max)).await?;
    let mut steps: Vec<&str> = [BLOBS, PUSHES, COMMANDS, &[VOTE]].concat();
    steps.shuffle(&mut run.random);
    let rounds = run.of(5, 4 * steps.len());
    let chosen: Vec<&str> = steps.iter().copied().cycle().take(rounds).collect();
    for step in chosen {
        let victim = die_working(run, step).await?;
        let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        run.writes_resume(&standing).await?;
        run.cluster()?.set_launch(victim, Launch::default());
        run.restart_all().await?;
    }
    Ok(())
}

/// Starts a replica that will die at a step, and waits until it has.
async fn die_working(run: &mut Run, step: &str) -> Result<usize> {
    let victim = run.choose(&[0, 1, 2])?;
    let occurrence = run.random.random_range(1..=20);
    if step == VOTE {
        return die_voting(run).await;
    }
    run.cluster()?.kill9(victim)?;
    arm(run, victim, step, occurrence)?;
    // It may die before it is ready.
    wait_dead(run, victim, step).await?;
    Ok(victim)
}

/// Lets a follower die when it votes for the successor of a leader that is gone. A leader that comes back in
/// time leads on without a vote, so it is no victim.
async fn die_voting(run: &mut Run) -> Result<usize> {
    let leader = run.leader().await?;
    let victim = (leader + 1) % 3;
    run.cluster()?.kill9(victim)?;
    arm(run, victim, VOTE, 1)?;
    // Not needed for it to be ready: it may meet a new term, and die of that, at once.
    run.cluster()?.kill9(leader)?;
    wait_dead(run, victim, VOTE).await?;
    run.cluster()?.restart(leader)?;
    Ok(victim)
}

fn arm(run: &mut Run, index: usize, step: &str, occurrence: u32) -> Result<()> {
    let armed = Launch::default().with("TERCET_FAILPOINT", &format!("{step}:{occurrence}"));
    let cluster = run.cluster()?;
    cluster.set_launch(index, armed);
    cluster.restart(index)
}

async fn wait_dead(run: &mut Run, index: usize, step: &str) -> Result<()> {
    let status = run.cluster()?.wait_exit(index, REACHED_MAX).await?;
    ensure!(!status.success(), "replica {index} ended by itself, with {status}");
    let log = run.cluster()?.replica(index).log_text();
    ensure!(
        log.contains(&format!("failpoint {step} reached")),
        "replica {index} ended with {status}, not at {step}"
    );
    run.faults.injected("abort", &format!("replica {index} at {step}"));
    Ok(())
}
