//! Row 16: the log and the content are on volumes of their own, and one of them is full.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    Lane, Needs, Run, Scenario,
    disks::{EX_IOERR, GROWING},
    run::HEAL_DEADLINE,
};
use crate::{
    content::Blob,
    disk::{DiskFault, Effect},
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "log-disk-full",
    rows: &[16],
    hypothesis: "a volume for content alone that is full costs nothing but pushes through its replica, and is well again by \
                 itself; a volume for the log alone that is full, which no look at the data directory shows, ends the \
                 process with code 74 before anything is promised, and a start on it with room goes on",
    fault: "ENOSPC (FUSE) for all that grows below `blobs` and `uploads` of one replica, then below `log` and `state`, then \
            below all of them, while the volume of the data directory has room",
    given: "three replicas are ready; each has room",
    abort: "two replicas have ended: writes are away until one of them has room",
    recovery: "content: pushes through the replica succeed within 20 s of there being room, without a restart; log: writes resume \
               within 10 s on the others, and the replica is whole again within 90 s of its start with room",
    rollback: "on a cluster of one's own: make room on the volume, and start the replica if it has ended",
    invariants: &[
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I5,
        Invariant::I7,
        Invariant::I8,
    ],
    fires: &["no space for content", "no space for the log", "no space for both"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Fuse,
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "scenario/log-disk-full";
const CONTENT: [&str; 2] = ["blobs", "uploads"];
const LOG: [&str; 2] = ["log", "state"];
/// How long the log may take to be written to under load, and a push to be refused or accepted again.
const REACHED_MAX: Duration = Duration::from_secs(30);

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_disks(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(32 << 10, 1 << 20))).await?;
    for round in 0..run.of(1, 6) {
        content_full(run, round).await?;
        log_full(run, "no space for the log", &LOG).await?;
        log_full(run, "no space for both", &["blobs", "uploads", "log", "state"]).await?;
    }
    Ok(())
}

fn fill(run: &mut Run, victim: usize, folders: &[&str]) -> Result<()> {
    for below in folders {
        let fault = DiskFault::always(GROWING, below, Effect::NoSpace);
        run.cluster()?.disk(victim)?.inject(fault);
    }
    Ok(())
}

async fn content_full(run: &mut Run, round: u64) -> Result<()> {
    run.work().await?;
    let victim = run.choose(&[0, 1, 2])?;
    fill(run, victim, &CONTENT)?;
    let full = run.faults.begin("no space for content", &format!("replica {victim}"));
    let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    run.writes_resume(&others).await?;
    let blob = Blob::random(run.seed ^ round, 30_000);
    let client = run.client(victim)?;
    // Refused, or taken by the two others on its behalf; never taken by nobody.
    let said = match client.open_upload(REPOSITORY).await {
        Ok(upload) => {
            let answer = client.finish(&upload, &blob.digest, blob.bytes.clone()).await;
            if run.ledger.judge_write(answer, &[201]).is_acknowledged() {
                run.ledger.keep_blob(REPOSITORY, &blob.digest);
                "acknowledged with the copies of the others"
            } else {
                "refused at its end"
            }
        }
        Err(_) => "refused at its beginning",
    };
    run.faults.note(&format!("a push through it was {said}"));
    let path = run.cluster()?.replica(victim).blob_path(&blob.digest)?;
    ensure!(!path.exists(), "there is a file {} on a full volume", path.display());
    run.work().await?;
    ensure!(
        run.cluster()?.ops_status(victim, "/livez").await? == 200,
        "replica {victim} has ended, and its log had room"
    );
    let hits = run.cluster()?.disk(victim)?.repair();
    run.faults.end(full);
    ensure_shown!(hits > 0, "the full volume was never asked to take anything");
    run.healed();
    // Without a restart.
    run.pushes_again(victim, REPOSITORY, &blob, REACHED_MAX).await?;
    run.whole_again(victim).await
}

async fn log_full(run: &mut Run, kind: &str, folders: &[&str]) -> Result<()> {
    run.work().await?;
    let leader = run.leader().await?;
    let victim = run.choose(&[leader, (leader + 1) % 3])?;
    fill(run, victim, folders)?;
    let role = if victim == leader { "the leader" } else { "a follower" };
    let full = run.faults.begin(kind, &format!("replica {victim}, {role}"));
    let ended = run.cluster()?.wait_exit(victim, REACHED_MAX).await;
    if ended.is_err() {
        let hits = run.cluster()?.disk(victim)?.repair();
        ensure_shown!(hits > 0, "the full volume was never asked to take anything");
    }
    let status = ended?;
    let log = run.cluster()?.replica(victim).log_text();
    let said = log.lines().last().unwrap_or_default().to_owned();
    ensure!(!log.contains("panicked at"), "replica {victim} has panicked");
    ensure!(status.code() == Some(EX_IOERR), "replica {victim} ended with {status}: {said}");
    run.faults.note(&format!("replica {victim} ended with {status}: {said}"));
    let others: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    run.writes_resume(&others).await?;

    // A start on the full volume either says so or waits for room; it never takes less for all that there is.
    run.cluster()?.restart(victim)?;
    let again = run.cluster()?.wait_exit(victim, Duration::from_secs(3)).await;
    if let Ok(status) = &again {
        ensure!(status.code() == Some(EX_IOERR), "a start on the full volume ended with {status}");
    }
    run.faults.note(&format!("a start on the full volume: {again:?}"));
    let hits = run.cluster()?.disk(victim)?.repair();
    ensure_shown!(hits > 0, "replica {victim} has ended, and its disk never said that it was full");
    run.faults.end(full);
    if again.is_err() {
        // It was half-way: whatever it has seen of the full volume, the next start is a fresh one.
        run.cluster()?.kill9(victim)?;
    }
    run.restart_all().await?;
    run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
    run.whole_again(victim).await
}
