//! Row 15: the disk answers with an error.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt as _;

use super::{Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    content::Image,
    launch::Launch,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-errors",
    rows: &[15],
    hypothesis: "after a failed fsync the process ends, since nobody knows what is on the disk; a failed read of a blob \
                 is made good from a peer in the same answer; nothing acknowledged is lost",
    fault: "EIO from one fsync of a replica under load; EIO from every read of one blob behind its first chunk",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["EIO on fsync", "EIO on read"],
    floor_per_second: 1.0,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

/// The exit code for a disk that failed.
const EX_IOERR: i32 = 74;
/// How long an fsync may take to come under load.
const REACHED_MAX: Duration = Duration::from_secs(60);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(64 << 10, 4 << 20))).await?;
    let rounds = run.of(1, 10);
    for round in 0..rounds {
        fail_sync(run).await?;
        fail_reads(run, round).await?;
    }
    Ok(())
}

async fn fail_sync(run: &mut Run) -> Result<()> {
    let victim = run.choose(&[0, 1, 2])?;
    let call = run.choose(&["fsync", "fdatasync"])?;
    let occurrence = run.random.random_range(5..=40);
    run.kill(victim)?;
    // Counted for each thread by itself, so it comes a little later.
    let inject = format!("{call}:error=EIO:when={occurrence}");
    trace(run, victim, &[&format!("--inject={inject}")])?;
    run.cluster()?.restart(victim)?;
    let status = run.cluster()?.wait_exit(victim, REACHED_MAX).await?;
    run.faults.injected("EIO on fsync", &format!("{inject} on replica {victim}: {status}"));
    let log = run.cluster()?.replica(victim).log_text();
    ensure!(!log.contains("panicked at"), "replica {victim} has panicked");
    ensure!(
        status.code() == Some(EX_IOERR),
        "replica {victim} ended with {status} and not with {EX_IOERR}"
    );
    let standing: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
    run.writes_resume(&standing).await?;
    run.cluster()?.set_launch(victim, Launch::default());
    run.restart_all().await
}

async fn fail_reads(run: &mut Run, round: usize) -> Result<()> {
    const REPOSITORY: &str = "scenario/unreadable";
    let victim = run.choose(&[0, 1, 2])?;
    let seed = run.random.random();
    let image = Image::random(seed, &[2_000_000]);
    let tag = format!("r{round}");
    run.client(victim)?.push_image(REPOSITORY, &tag, &image).await?;
    run.ledger.keep_image(REPOSITORY, &tag, &image);
    let layer = image.blobs.iter().max_by_key(|blob| blob.bytes.len()).context("no blob")?;
    for index in 0..3 {
        run.cluster()?.wait_held(index, &layer.digest, HEAL_DEADLINE).await?;
    }
    let path = run.cluster()?.replica(victim).blob_path(&layer.digest)?.display().to_string();
    run.kill(victim)?;
    trace(run, victim, &["--trace-path", &path, "--inject=pread64:error=EIO:when=2+"])?;
    run.restart_all().await?;
    let bytes = run.client(victim)?.pull_blob(REPOSITORY, &layer.digest).await?;
    ensure!(bytes == layer.bytes, "the client got wrong bytes");
    let log = run.cluster()?.replica(victim).log_text();
    ensure!(log.contains("a peer's copy goes on in its place"), "the read did not fail");
    run.faults.injected("EIO on read", &format!("{path}, behind its first chunk"));
    run.kill(victim)?;
    run.cluster()?.set_launch(victim, Launch::default());
    run.restart_all().await
}

/// Puts `strace` around a replica: the kernel has no other way to fail a call on purpose that works everywhere.
fn trace(run: &mut Run, victim: usize, arguments: &[&str]) -> Result<()> {
    let strace = ["strace", "--daemonize", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null"];
    let launch = Launch::default().through(&[&strace[..], arguments].concat());
    run.cluster()?.set_launch(victim, launch);
    Ok(())
}
