//! Row 13: a replica's files are not what it left.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};

use super::{
    Lane, Needs, Run, Scenario,
    damage::{cut, flip_bit, largest, some_blob, zero_page},
    disks::{EX_IOERR, Start},
    run::{SCRUB_DEADLINE, again},
};
use crate::{
    content::Blob,
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bit-rot",
    rows: &[13],
    hypothesis: "a damaged file is noticed: a blob is replaced from a peer and never served wrong; a replica whose log, \
                 state or identity is damaged in a place that matters refuses to start, and rejoins as a new member once \
                 its disk is wiped, never with less than it had acknowledged under its old id",
    fault: "a bit flipped, a page zeroed or a file cut, in the middle and at the end of the log, in the state's log, a table \
            of it, its manifest, the identity, a blob or an upload of a stopped replica, then a start; again and again",
    given: "three replicas hold every blob; the one that will be hurt is stopped, the two others are whole",
    abort: "a client gets bytes that do not hash to what it asked for, or a second replica is hurt before the first \
            is whole again",
    recovery: "a damaged blob is right again after one scrub; a replica that refuses its disk is wiped, joins under \
               a new id and holds everything within 90 s",
    rollback: "on a cluster of one's own: wipe the data folder of the hurt replica and let it join anew; the others \
               have everything",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["damage", "damaged upload"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// Which file, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Blob,
    BlobCut,
    LogMiddle,
    LogTail,
    LogZeroPage,
    LogManifest,
    StateLog,
    StateTable,
    StateManifest,
    Identity,
    IdentityEmpty,
}

const ALL: [Damage; 11] = [
    Damage::Blob,
    Damage::BlobCut,
    Damage::LogMiddle,
    Damage::LogTail,
    Damage::LogZeroPage,
    Damage::LogManifest,
    Damage::StateLog,
    Damage::StateTable,
    Damage::StateManifest,
    Damage::Identity,
    Damage::IdentityEmpty,
];

const REPOSITORY: &str = "chaos/rot";
const UPLOAD: usize = 200_000;
/// Until a process that has read a damaged table has ended.
const READ_MAX: Duration = Duration::from_secs(5);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default().scrubs_at_once()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    let mut damages = ALL;
    damages.shuffle(&mut run.random);
    let rounds = run.of(5, 3 * damages.len());
    let chosen: Vec<Damage> = damages.iter().copied().cycle().take(rounds).collect();
    for damage in chosen {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        run.kill(victim)?;
        if let Damage::StateTable = damage {
            // A start turns the state's log into a table.
            run.restart_all().await?;
            run.whole_again(victim).await?;
            run.kill(victim)?;
        }
        let data_dir = run.cluster()?.replica(victim).data_dir.clone();
        let before = run.known_id(victim)?;
        let path = inflict(damage, &data_dir, &mut run.random).or_not_shown()?;
        let relative = path.strip_prefix(&data_dir).unwrap_or(&path).display().to_string();
        run.faults.injected("damage", &format!("{damage:?}: {relative} of replica {victim}"));
        run.cluster()?.restart(victim)?;
        let mut start = run.started(victim).await?;
        if damage == Damage::StateTable && start == Start::Ready {
            start = read_all(run, victim).await?;
        }
        run.faults.note(&format!("replica {victim} on it: {start:?}"));
        match damage {
            // Noticed when it is read; scrub reads it now.
            Damage::Blob | Damage::BlobCut => {
                ensure!(
                    start == Start::Ready,
                    "a damaged blob kept replica {victim} from starting"
                );
                scrub(run, victim).await?;
            }
            // Nothing that was acknowledged may be missing from a log that is gone on with.
            Damage::LogMiddle
            | Damage::LogZeroPage
            | Damage::LogManifest
            | Damage::Identity
            | Damage::IdentityEmpty
                if start == Start::Ready =>
            {
                let what = format!("replica {victim} started on {damage:?} ({relative})");
                run.ledger.violated(Invariant::I1, what);
            }
            _ => {}
        }
        if start == Start::Refused {
            run.cluster()?.wipe(victim)?;
            run.restart_all().await?;
            let after = run.status(victim).await?.node_id;
            ensure!(after != before, "the old id {after} came back on an empty disk");
        }
        run.whole_again(victim).await?;
    }
    for _ in 0..run.of(1, 6) {
        damage_upload(run).await?;
    }
    Ok(())
}

/// A block of a table is read when it is needed: this needs all of them. The process that has met a bad one must not
/// go on with it.
async fn read_all(run: &mut Run, victim: usize) -> Result<Start> {
    let name = run.cluster()?.replica(victim).name.clone();
    let said = run.cluster()?.operate(victim, &["state-hash", "--of", &name]).await;
    let Ok(status) = run.cluster()?.wait_exit(victim, READ_MAX).await else {
        if let Err(error) = said {
            let what = format!("replica {victim} lives on with a state it cannot read: {error:#}");
            run.ledger.violated(Invariant::I5, what);
        }
        return Ok(Start::Ready);
    };
    let log = run.cluster()?.replica(victim).log_text();
    ensure!(!log.contains("panicked at"), "replica {victim} has panicked");
    let last = log.lines().last().unwrap_or_default();
    ensure!(
        matches!(status.code(), Some(65 | EX_IOERR)),
        "replica {victim} ended with {status}, which says nothing: {last}"
    );
    run.faults.note(&format!("replica {victim} has met it ({status}): {last}"));
    Ok(Start::Refused)
}

/// What the disk has of an upload changes before its end. Whatever the last answer is, a blob that is acknowledged
/// has the right bytes at the end, on every replica.
async fn damage_upload(run: &mut Run) -> Result<()> {
    let blob = Blob::random(run.random.random(), UPLOAD);
    let victim = run.choose(&[0, 1, 2])?;
    let client = run.client(victim)?;
    let half = UPLOAD / 2;
    let upload = again("half an upload is taken", || async {
        let mut upload = client.open_upload(REPOSITORY).await?;
        client.append(&mut upload, blob.bytes.slice(..half)).await?;
        Ok(upload)
    })
    .await?;
    run.kill(victim)?;
    let folder = run.cluster()?.replica(victim).data_dir.join("uploads");
    let path = largest(&folder, |_| true).or_not_shown()?;
    flip_bit(&path, (0.0, 1.0), &mut run.random)?;
    run.faults.injected("damaged upload", &format!("of replica {victim}"));
    run.restart_all().await?;
    let answer = client.finish(&upload, &blob.digest, blob.bytes.slice(half..)).await;
    let wrote = run.ledger.judge_write(answer, &[201]);
    run.faults.note(&format!("the upload ended with {wrote:?}"));
    if wrote.is_acknowledged() {
        run.ledger.keep_blob(REPOSITORY, &blob.digest);
    }
    run.whole_again(victim).await
}

fn inflict(damage: Damage, data_dir: &Path, random: &mut StdRng) -> Result<PathBuf> {
    let (log, state) = (data_dir.join("log"), data_dir.join("state"));
    let wal = |name: &str| name.ends_with(".log");
    let manifest = |name: &str| name.starts_with("MANIFEST-");
    let path = match damage {
        Damage::Blob | Damage::BlobCut => some_blob(data_dir, random)?,
        Damage::LogMiddle | Damage::LogTail | Damage::LogZeroPage => largest(&log, wal)?,
        Damage::LogManifest => largest(&log, manifest)?,
        Damage::StateLog => largest(&state, wal)?,
        Damage::StateTable => largest(&state, |name| name.ends_with(".sst"))?,
        Damage::StateManifest => largest(&state, manifest)?,
        Damage::Identity | Damage::IdentityEmpty => data_dir.join("identity.json"),
    };
    match damage {
        Damage::Blob | Damage::LogMiddle | Damage::LogManifest | Damage::StateManifest => {
            flip_bit(&path, (0.3, 0.6), random)?;
        }
        Damage::StateLog => {
            flip_bit(&path, (0.0, 1.0), random)?;
        }
        // Behind that are what it says of itself, and bytes that nobody reads.
        Damage::StateTable => {
            flip_bit(&path, (0.0, 0.9), random)?;
        }
        // The very last record cannot be told from one that was being written when the power went.
        Damage::LogTail => {
            flip_bit(&path, (0.999, 1.0), random)?;
        }
        Damage::LogZeroPage => zero_page(&path)?,
        Damage::BlobCut => cut(&path)?,
        // A brace: a bit in a name or a date would be another valid identity.
        Damage::Identity => {
            let text = std::fs::read_to_string(&path)?;
            std::fs::write(&path, text.replacen('{', "[", 1))?;
        }
        Damage::IdentityEmpty => std::fs::write(&path, b"")?,
    }
    Ok(path)
}

/// Reads all blobs of the replica, and waits until the damaged one is right again.
async fn scrub(run: &mut Run, victim: usize) -> Result<()> {
    let cluster = run.cluster()?;
    // Fails by design when it finds something, which it may not: the first pull may have been before.
    let _ = cluster.operate(victim, &["scrub", "--now", "--wait"]).await;
    let cluster = &*cluster;
    wait_until("the scrub finds nothing wrong", SCRUB_DEADLINE, || async {
        cluster.operate(victim, &["scrub", "--now", "--wait"]).await?;
        Ok(())
    })
    .await
}
