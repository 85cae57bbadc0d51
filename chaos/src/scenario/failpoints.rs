//! Row 10: the process dies between any two steps from a client's bytes to its answer.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::{RngExt as _, seq::SliceRandom as _};
use tokio::task::JoinSet;

use super::{
    Lane, Needs, Run, Scenario,
    run::HEAL_DEADLINE,
    snapshot_install::{ENTRIES, prepare_fill, write_batch},
};
use crate::{
    launch::Launch,
    not_shown::{OrNotShown as _, ensure_shown},
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "failpoints",
    rows: &[10],
    hypothesis: "a replica may die at any step between the first byte and the answer: what was acknowledged is \
                 there, what was not is whole or not there, and the replica starts again on what it left",
    fault: "the process aborts at a step of the blob store, the push, the Raft log, the state machine, of applying a \
            membership, or of taking or installing a snapshot, then a restart; again and again, at other steps",
    given: "three replicas of a build with failpoints are ready; images are pushed and tags move",
    abort: "a replica does not start again on what it left: keep its folder, it is the evidence",
    recovery: "writes go on within 10 s of each abort; the replica is ready within 90 s of its start, and nothing \
               half-written is seen",
    rollback: "a release has no failpoints, so there is nothing to undo on a cluster of one's own",
    invariants: &[
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I8,
    ],
    fires: &[ABORT, ABORT_JOINING, ABORT_SAVING, ABORT_INSTALLING],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
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
/// Every replica reaches this when its log has grown by so much that a snapshot is taken.
const SNAPSHOT_SAVED: &str = "snapshot.checkpoint_taken";
/// Every replica reaches these when another one joins.
const MEMBERSHIP: &[&str] = &["state.before_membership", "state.after_membership"];
/// One that was away for so long that the log no longer reaches back to it reaches these.
const SNAPSHOT_INSTALLED: &[&str] = &[
    "snapshot.install_prepared",
    "snapshot.install_old_aside",
    "snapshot.install_new_in",
    "snapshot.install_durable",
];
/// Kinds of faults.
const ABORT: &str = "abort";
const ABORT_JOINING: &str = "abort while a member joins";
const ABORT_SAVING: &str = "abort while a snapshot is taken";
const ABORT_INSTALLING: &str = "abort while a snapshot is installed";
/// In every build that has them.
const MARK: &[u8] = b" reached: aborting";
/// How long a step may take to be reached.
const REACHED_MAX: Duration = Duration::from_secs(120);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let program = std::fs::read(run.cluster()?.binary())?;
    ensure_shown!(
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
    let mut steps = MEMBERSHIP.to_vec();
    steps.shuffle(&mut run.random);
    let rounds = run.of(1, steps.len());
    for step in steps.into_iter().take(rounds) {
        die_of_a_member(run, step).await?;
    }
    let mut steps = SNAPSHOT_INSTALLED.to_vec();
    steps.shuffle(&mut run.random);
    let rounds = run.of(1, steps.len());
    for (round, step) in steps.into_iter().take(rounds).enumerate() {
        die_of_snapshots(run, round, step).await?;
    }
    Ok(())
}

/// A replica loses its disk, and another one dies when it applies that the new member joins.
async fn die_of_a_member(run: &mut Run, step: &str) -> Result<()> {
    let leader = run.leader().await?;
    let (joining, victim) = ((leader + 1) % 3, (leader + 2) % 3);
    // What is only on the disk that goes would be the loss of two.
    for index in 0..3 {
        run.whole_again(index).await?;
    }
    run.cluster()?.kill9(victim)?;
    arm(run, victim, step, 1)?;
    run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    // Two of three vote until it is in, and the victim is one of them.
    run.majority_gone();
    run.kill(joining)?;
    run.cluster()?.wipe(joining)?;
    run.cluster()?.restart(joining)?;
    wait_dead(run, victim, step, ABORT_JOINING).await?;
    run.cluster()?.set_launch(victim, Launch::default());
    run.restart_all().await?;
    run.whole_again(joining).await
}

/// While one follower is away the log grows until another one dies when it takes a snapshot, and then until it no longer
/// reaches back to the first, which dies when it installs the snapshot that it gets in its place.
async fn die_of_snapshots(run: &mut Run, round: usize, step: &str) -> Result<()> {
    let leader = run.leader().await?;
    let (away, saving) = ((leader + 1) % 3, (leader + 2) % 3);
    prepare_fill(run, leader).await?;
    // Whether the leader has just taken its own is not known: the other's next one comes within the same growth.
    run.cluster()?.kill9(saving)?;
    arm(run, saving, SNAPSHOT_SAVED, 1)?;
    run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    run.kill(away)?;
    let (client, ledger) = (run.client(leader)?, run.ledger.clone());
    let mut filling = JoinSet::new();
    filling.spawn(async move {
        let mut written = 0;
        for batch in 0_u64.. {
            if written >= ENTRIES {
                break;
            }
            written += write_batch(&client, &ledger, &format!("{round}-{batch}")).await;
        }
    });
    // The leader is left alone until it is back.
    run.majority_gone();
    wait_dead(run, saving, SNAPSHOT_SAVED, ABORT_SAVING).await?;
    run.cluster()?.set_launch(saving, Launch::default());
    run.cluster()?.restart(saving)?;
    run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    run.majority_back();
    while let Some(filled) = filling.join_next().await {
        filled?;
    }
    arm(run, away, step, 1)?;
    wait_dead(run, away, step, ABORT_INSTALLING).await?;
    run.cluster()?.set_launch(away, Launch::default());
    run.restart_all().await?;
    run.whole_again(away).await
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
    wait_dead(run, victim, step, ABORT).await?;
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
    // With the one that dies of its vote it is a majority that is gone, until the leader is back.
    run.majority_gone();
    run.cluster()?.kill9(leader)?;
    wait_dead(run, victim, VOTE, ABORT).await?;
    run.cluster()?.restart(leader)?;
    run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    Ok(victim)
}

fn arm(run: &mut Run, index: usize, step: &str, occurrence: u32) -> Result<()> {
    let armed = Launch::default().with("TERCET_FAILPOINT", &format!("{step}:{occurrence}"));
    let cluster = run.cluster()?;
    cluster.set_launch(index, armed);
    cluster.restart(index)
}

async fn wait_dead(run: &mut Run, index: usize, step: &str, kind: &str) -> Result<()> {
    let status = run.cluster()?.wait_exit(index, REACHED_MAX).await.or_not_shown()?;
    ensure!(!status.success(), "replica {index} ended by itself, with {status}");
    let log = run.cluster()?.replica(index).log_text();
    ensure!(
        log.contains(&format!("failpoint {step} reached")),
        "replica {index} ended with {status}, not at {step}"
    );
    run.faults.injected(kind, &format!("replica {index} at {step}"));
    Ok(())
}
