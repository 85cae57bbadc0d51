//! Row 13: a replica's files are not what it left.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use rand::{rngs::StdRng, seq::SliceRandom as _};

use super::{
    Needs, Run, Scenario,
    damage::{cut, flip_bit, largest, some_blob, zero_page},
    run::HEAL_DEADLINE,
};
use crate::{
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
    fault: "a bit flipped, a page zeroed or a file cut, in the middle and at the end of the log, in the state, its \
            manifest, the identity or a blob of a stopped replica, then a start; again and again",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["damage"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// Which file, and how.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Blob,
    BlobCut,
    LogMiddle,
    LogTail,
    LogZeroPage,
    LogManifest,
    StateLog,
    StateManifest,
    Identity,
    IdentityEmpty,
}

const ALL: [Damage; 10] = [
    Damage::Blob,
    Damage::BlobCut,
    Damage::LogMiddle,
    Damage::LogTail,
    Damage::LogZeroPage,
    Damage::LogManifest,
    Damage::StateLog,
    Damage::StateManifest,
    Damage::Identity,
    Damage::IdentityEmpty,
];

/// What a start on damaged files came to.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Ready,
    /// It refused.
    Ended,
}

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    let mut damages = ALL;
    damages.shuffle(&mut run.random);
    let rounds = run.of(5, 3 * damages.len());
    let chosen: Vec<Damage> = damages.iter().copied().cycle().take(rounds).collect();
    for damage in chosen {
        run.work().await?;
        let victim = run.choose(&[0, 1, 2])?;
        run.kill(victim)?;
        let data_dir = run.cluster()?.replica(victim).data_dir.clone();
        let before = last_id(&data_dir)?;
        let path = inflict(damage, &data_dir, &mut run.random)?;
        let relative = path.strip_prefix(&data_dir).unwrap_or(&path).display().to_string();
        run.faults.injected("damage", &format!("{damage:?}: {relative} of replica {victim}"));
        run.cluster()?.restart(victim)?;
        let start = started(run, victim).await?;
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
        if start == Start::Ended {
            run.cluster()?.wipe(victim)?;
            run.restart_all().await?;
            let after = run.cluster()?.status(victim).await?.node_id;
            ensure!(Some(after) != before, "the old id {after} came back on an empty disk");
        }
        run.whole_again(victim).await?;
    }
    Ok(())
}

fn last_id(data_dir: &Path) -> Result<Option<u64>> {
    let text = std::fs::read_to_string(data_dir.join("identity.json"))?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    Ok(json.get("node_id").and_then(serde_json::Value::as_u64))
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

/// Waits until the replica is ready, or has refused to start.
async fn started(run: &mut Run, victim: usize) -> Result<Start> {
    let deadline = tokio::time::Instant::now() + HEAL_DEADLINE;
    loop {
        let cluster = run.cluster()?;
        if let Ok(status) = cluster.wait_exit(victim, Duration::from_millis(200)).await {
            ensure!(!status.success(), "replica {victim} ended as if all were well");
            let log = cluster.replica(victim).log_text();
            ensure!(!log.contains("panicked at"), "replica {victim} has panicked");
            return Ok(Start::Ended);
        }
        if cluster.ops_status(victim, "/readyz").await.is_ok_and(|code| code == 200) {
            return Ok(Start::Ready);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("replica {victim} neither becomes ready nor ends");
        }
    }
}

/// Reads all blobs of the replica, and waits until the damaged one is right again.
async fn scrub(run: &mut Run, victim: usize) -> Result<()> {
    let cluster = run.cluster()?;
    // Fails by design when it finds something, which it may not: the first pull may have been before.
    let _ = cluster.operate(victim, &["scrub", "--now", "--wait"]).await;
    let cluster = &*cluster;
    wait_until("the scrub finds nothing wrong", HEAL_DEADLINE, || async {
        cluster.operate(victim, &["scrub", "--now", "--wait"]).await?;
        Ok(())
    })
    .await
}
