//! Row 15: the disk answers with an error.

use std::{ops::RangeInclusive, process::ExitStatus, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt as _;

use super::{
    Lane, Needs, Run, Scenario,
    disks::{EX_IOERR, FORGOTTEN},
    run::{HEAL_DEADLINE, again},
};
use crate::{
    content::{Blob, Image},
    disk::{Call, DiskFault, Effect},
    not_shown::{OrNotShown as _, ensure_shown},
    options::ClusterOptions,
    workload::{Invariant, Kept, LoadOptions, Reading},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-errors",
    rows: &[15],
    hypothesis: "after a failed fsync, or a failed write of log or state, the process ends, since nobody knows what is on the \
                 disk, and nothing that it had promised is missing, even if the power goes then; content that cannot be \
                 written is refused or held by others; a failed read of a blob is made good from a peer in the same \
                 answer",
    fault: "EIO (FUSE) from one fsync of a replica under load, from the writes of its log or state, from every write of content, \
            from every read of one blob behind its first chunk; writes of half the length, and slow ones",
    given: "three replicas hold every blob, each on a disk of its own that is told which calls to fail",
    abort: "a replica goes on after a failed fsync, or a client gets wrong bytes",
    recovery: "the replica with the failed fsync ends at once, and the others write within 10 s; a failed read is \
               made good in the same answer; after a start on a good disk it is ready within 90 s",
    rollback: "on a cluster of one's own: take the failing disk away and start the replica on an empty one",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &[
        "EIO on fsync",
        "EIO on write",
        "EIO on writes of content",
        "EIO on read",
        "short and slow writes",
    ],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Fuse,
    body: |run| Box::pin(body(run)),
};

/// How long a call may take to come under load.
const REACHED_MAX: Duration = Duration::from_secs(60);
const REPOSITORY: &str = "scenario/unreadable";

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_disks(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    for round in 0..run.of(1, 10) {
        fail_sync(run).await?;
        fail_write(run).await?;
        fail_content(run, round).await?;
        fail_reads(run, round).await?;
        hinder_writes(run).await?;
    }
    Ok(())
}

/// One fsync, of whatever comes: it is never tried again.
async fn fail_sync(run: &mut Run) -> Result<()> {
    let below = run.choose(&["", "log", "blobs", "uploads"])?;
    let number = run.random.random_range(1..=20);
    ends(run, "EIO on fsync", DiskFault::once(&[Call::Sync], below, Effect::Error, number)).await
}

/// A write that RocksDB makes, and those after it: the kernel splits a large one, and of a part that fails alone it says that
/// less was written, which is tried again and is no error.
async fn fail_write(run: &mut Run) -> Result<()> {
    let below = run.choose(&["log", "state"])?;
    let number = run.random.random_range(1..=20);
    let which: Option<RangeInclusive<u64>> = Some(number..=u64::MAX);
    let fault =
        DiskFault { calls: &[Call::Write], below: below.into(), effect: Effect::Error, which };
    ends(run, "EIO on write", fault).await
}

/// The process ends; now and then the power goes as well, and with it what the failed call was about.
async fn ends(run: &mut Run, kind: &str, fault: DiskFault) -> Result<()> {
    run.work().await?;
    let victim = run.choose(&[0, 1, 2])?;
    let number = fault.which.as_ref().map_or(1, |which| *which.start());
    let what = format!("number {number} below /{}", fault.below.display());
    let (below, log_before) =
        (fault.below.display().to_string(), run.cluster()?.replica(victim).log_text().len());
    run.cluster()?.disk(victim)?.inject(fault);
    let status = ended(run, victim).await?;
    let hit = run.cluster()?.disk(victim)?.hit();
    let log = run.cluster()?.replica(victim).log_text();
    let said = log.get(log_before..).and_then(|new| new.lines().last()).unwrap_or_default();
    run.faults.injected(kind, &format!("{what}, {hit:?}, on replica {victim}: {status}: {said}"));
    ensure!(!log.contains("panicked at"), "replica {victim} has panicked");
    ensure!(
        status.code() == Some(EX_IOERR),
        "replica {victim} ended with {status} and not with {EX_IOERR} (below /{below})"
    );
    let hits = run.cluster()?.disk(victim)?.repair();
    ensure_shown!(hits > 0, "no call failed");
    let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    run.writes_resume(&standing).await?;
    if run.random.random_bool(0.5) {
        run.lose_power(&[victim], &[FORGOTTEN])?;
    }
    run.restart_all().await?;
    run.whole_again(victim).await
}

/// Waits for the end of a process one of whose calls fails.
async fn ended(run: &mut Run, victim: usize) -> Result<ExitStatus> {
    let ended = run.cluster()?.wait_exit(victim, REACHED_MAX).await;
    let hit = run.cluster()?.disk(victim)?.hit();
    match ended {
        Ok(status) => Ok(status),
        Err(error) if hit.is_empty() => Err(error).or_not_shown(),
        Err(error) => Err(error.context(format!("it goes on after a failed call on {hit:?}"))),
    }
}

/// Every write of content.
async fn fail_content(run: &mut Run, round: usize) -> Result<()> {
    let victim = run.choose(&[0, 1, 2])?;
    for below in ["blobs", "uploads"] {
        let fault = DiskFault::always(&[Call::Write, Call::Create], below, Effect::Error);
        run.cluster()?.disk(victim)?.inject(fault);
    }
    let fault = run.faults.begin("EIO on writes of content", &format!("replica {victim}"));
    let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    run.writes_resume(&standing).await?;
    run.work().await?;
    // Not that it has ended of content that it could not write.
    run.lives(victim).await?;
    let hits = run.cluster()?.disk(victim)?.repair();
    run.faults.end(fault);
    ensure_shown!(hits > 0, "nothing was written");
    let blob = Blob::random(run.seed ^ (round as u64), 30_000);
    run.pushes_again(victim, REPOSITORY, &blob, HEAL_DEADLINE).await?;
    run.whole_again(victim).await
}

async fn fail_reads(run: &mut Run, round: usize) -> Result<()> {
    let victim = run.choose(&[0, 1, 2])?;
    let seed = run.random.random();
    let image = Image::random(seed, &[2_000_000]);
    let tag = format!("r{round}");
    run.push_image(victim, REPOSITORY, &tag, &image).await?;
    let layer = image.blobs.iter().max_by_key(|blob| blob.bytes.len()).context("no blob")?;
    for index in 0..3 {
        run.cluster()?.wait_held(index, &layer.digest, HEAL_DEADLINE).await?;
    }
    let replica = run.cluster()?.replica(victim);
    let path = replica.blob_path(&layer.digest)?;
    let below = path.strip_prefix(&replica.data_dir)?.to_path_buf();
    let which: Option<RangeInclusive<u64>> = Some(2..=u64::MAX);
    let fault = DiskFault { calls: &[Call::Read], below, effect: Effect::Error, which };
    let log_before = run.cluster()?.replica(victim).log_text().len();
    run.cluster()?.disk(victim)?.inject(fault);
    made_good(run, victim, &layer.digest).await?;
    let hits = run.cluster()?.disk(victim)?.repair();
    ensure_shown!(hits > 0, "nothing was read from the disk");
    let log = run.cluster()?.replica(victim).log_text();
    let new = log.get(log_before..).unwrap_or_default();
    ensure!(new.contains("a peer's copy goes on in its place"), "the failed read was not noticed");
    let what = format!("{}, behind its first chunk, {hits} times", path.display());
    run.faults.injected("EIO on read", &what);
    // It may have been taken out of use, and is replaced then.
    run.cluster()?.wait_held(victim, &layer.digest, HEAL_DEADLINE).await?;
    run.whole_again(victim).await
}

/// One answer with all the bytes. "Not now" is none, and is legal; one that breaks off half-way is what must not be.
async fn made_good(run: &mut Run, victim: usize, digest: &str) -> Result<()> {
    let client = run.client(victim)?;
    let ledger = run.ledger.clone();
    let (repository, reference) = (REPOSITORY.to_owned(), digest.to_owned());
    let kept = Kept { repository, reference, digest: digest.to_owned(), manifest: false };
    let reading = again("a blob is read", || async {
        match ledger.read(&client, &kept).await {
            Reading::Refused(503) => bail!("it answers 503"),
            reading => Ok(reading),
        }
    })
    .await?;
    match reading {
        Reading::Found(_) => Ok(()),
        other => bail!("a failed read was not made good: {other:?}"),
    }
}

/// Writes that are legal and rare: whoever takes a count for granted is found out by the digests at the end.
async fn hinder_writes(run: &mut Run) -> Result<()> {
    let victim = run.choose(&[0, 1, 2])?;
    let disk = run.cluster()?.disk(victim)?;
    disk.inject(DiskFault::always(&[Call::Write], "uploads", Effect::Short));
    disk.inject(DiskFault::always(&[Call::Write], "blobs", Effect::Short));
    let pause = Duration::from_millis(3);
    disk.inject(DiskFault::always(&[Call::Write, Call::Sync], "", Effect::Slow(pause)));
    let fault = run.faults.begin("short and slow writes", &format!("replica {victim}"));
    run.work().await?;
    let hits = run.cluster()?.disk(victim)?.repair();
    run.faults.end(fault);
    run.faults.note(&format!("{hits} calls were hindered"));
    ensure_shown!(hits > 0, "nothing was written");
    Ok(())
}
