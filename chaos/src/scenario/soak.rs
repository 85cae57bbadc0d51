//! Row 46 in a short form: everything at once for a while, and nothing grows that should not.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Churn, Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "soak",
    rows: &[46],
    hypothesis: "under pushes, pulls, moves of tags, deletes and collection together, with a mild fault now and then, neither memory nor \
                 open files of a process grow with the work that it has done",
    fault: "a process is stopped for a second or is restarted, now and then, one at a time",
    given: "three replicas are ready; collection runs every second with a grace of twelve",
    abort: "a replica uses twice the memory that it had after the first quarter, or a tenth of its open files are \
            left",
    recovery: "after each fault the replica has caught up within 90 s; at the end memory and open files of each process are \
               within their bounds of what they were after the first quarter",
    rollback: "on a cluster of one's own: restart the replica that has grown, and keep its metrics",
    invariants: &[
        Invariant::I1,
        Invariant::I3,
        Invariant::I5,
        Invariant::I6,
        Invariant::I7,
        Invariant::I8,
        Invariant::I9,
    ],
    fires: &["pause"],
    floor_per_second: 5.0,
    lane: Lane::Full,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

const GRACE_SECONDS: u64 = 12;
/// What a process may have more than after the first quarter: caches fill, and the allocator keeps some.
const MEMORY_SLACK: u64 = 64 << 20;
const FILES_SLACK: u64 = 200;

/// What one process uses.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// It is the same one as long as this is the same.
    pid: u32,
    resident: u64,
    files: u64,
}

async fn body(run: &mut Run) -> Result<()> {
    let grace = GRACE_SECONDS.to_string();
    let options = ClusterOptions::default()
        .setting("gc", "grace_seconds", &grace)
        .setting("gc", "orphan_grace_seconds", &grace)
        .setting("gc", "interval_seconds", "1");
    run.start(options).await?;
    // W4 pushes and pulls images, too, and knows which of their layers a collection may take.
    run.load(LoadOptions::tags(3)).await?;
    let grace = Duration::from_secs(GRACE_SECONDS);
    let churn = Churn::start(&run.targets, &run.ledger, grace, run.seed);
    let rounds = run.of(8_usize, 40);
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); 3];
    for round in 0..rounds {
        // Restarts only in the first quarter: after it each process is to live long enough to grow.
        if round < rounds / 4 {
            let victim = run.choose(&[0, 1, 2])?;
            run.kill(victim)?;
            run.work().await?;
            run.restart_all().await?;
            run.cluster()?.wait_caught_up(victim, HEAL_DEADLINE).await?;
        } else {
            let victim = run.choose(&[0, 1, 2])?;
            let pause = run.faults.begin("pause", &format!("replica {victim}"));
            run.cluster()?.pause(victim)?;
            run.last(Duration::from_millis(300), Duration::from_millis(1_500)).await;
            run.cluster()?.replica(victim).signal(Signal::CONT)?;
            run.faults.end(pause);
            run.last(run.of(2, 8) * Duration::from_secs(1), run.of(3, 15) * Duration::from_secs(1))
                .await;
            run.work().await?;
            for (index, samples) in samples.iter_mut().enumerate() {
                samples.push(sample(run, index)?);
            }
        }
    }
    let churned = churn.churned();
    run.figure("churned", format!("{churned:?}"));
    ensure_shown!(churned.deleted > 0, "too calm: {churned:?}");
    for (index, samples) in samples.iter().enumerate() {
        judge(run, index, samples)?;
    }
    churn.stop().await?;
    Ok(())
}

fn sample(run: &mut Run, index: usize) -> Result<Sample> {
    let replica = run.cluster()?.replica(index);
    let pid = replica.pid().context("the replica runs")?;
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
    Ok(Sample { pid, resident: replica.memory()?.resident, files })
}

/// The second half of the samples against the first: the median, so that one peak says nothing.
fn judge(run: &mut Run, index: usize, samples: &[Sample]) -> Result<()> {
    let last = samples.last().context("no sample")?;
    let own: Vec<Sample> = samples.iter().copied().filter(|one| one.pid == last.pid).collect();
    let (early, late) = own.split_at(own.len() / 2);
    let memory = |half: &[Sample]| median(half.iter().map(|one| one.resident).collect());
    let files = |half: &[Sample]| median(half.iter().map(|one| one.files).collect());
    let (memory, files) = ((memory(early), memory(late)), (files(early), files(late)));
    run.figure(
        &format!("replica_{index}_memory_mib_and_files"),
        format!("{} -> {} MiB, {} -> {}", memory.0 >> 20, memory.1 >> 20, files.0, files.1),
    );
    if memory.1 > memory.0 + MEMORY_SLACK.max(memory.0 / 2) {
        let what = format!("memory of replica {index} grew from {} to {}", memory.0, memory.1);
        run.ledger.violated(Invariant::I9, what);
    }
    if files.1 > files.0 + FILES_SLACK {
        let what = format!("open files of replica {index} grew from {} to {}", files.0, files.1);
        run.ledger.violated(Invariant::I9, what);
    }
    Ok(())
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
