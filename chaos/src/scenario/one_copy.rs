//! No write quorum of disks takes content, and then the one that did is lost.

use std::time::Duration;

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario, disks::GROWING, run::HEAL_DEADLINE};
use crate::{
    check::check_copies,
    content::Blob,
    disk::{DiskFault, Effect},
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-copy",
    rows: &[16, 18],
    hypothesis: "content is acknowledged only when a write quorum of replicas holds it: with one replica that takes bytes no \
                 push succeeds, so the loss of that replica's disk loses nothing",
    fault: "the disks of two replicas (FUSE) take no bytes of content any more, ENOSPC, while clients push; then the disk of \
            the third is replaced by an empty one, and the two take bytes again",
    given: "three replicas are ready and hold everything; the write quorum is two",
    abort: "a push is acknowledged while only one disk takes bytes",
    recovery: "pushes are refused with 503 or 507 until a second disk takes bytes, and succeed within 20 s after that; the third \
               replica is whole again within 90 s of its start on an empty disk",
    rollback: "on a cluster of one's own: make room on the two volumes",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I7, Invariant::I8],
    fires: &["two disks take no content", "lost disk"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Fuse,
    body: |run| Box::pin(body(run)),
};

const REPOSITORY: &str = "scenario/one-copy";
/// Enough requests to each replica that one that is acknowledged too early is among them.
const PUSHES: u64 = 12;

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_disks(ClusterOptions::default()).await?;
    for round in 0..run.of(1, 8) {
        // Tags move all the time: the metadata has room, and manifests are part of it.
        run.load(LoadOptions::images_and_tags(3, run.of(32 << 10, 1 << 20))).await?;
        run.work().await?;
        run.stop_load().await?;
        for index in 0..3 {
            run.whole_again(index).await?;
        }
        let third = run.choose(&[0, 1, 2])?;
        let two: Vec<usize> = (0..3).filter(|index| *index != third).collect();
        for index in &two {
            for below in ["uploads", "blobs"] {
                let fault = DiskFault::always(GROWING, below, Effect::NoSpace);
                run.cluster()?.disk(*index)?.inject(fault);
            }
        }
        let full =
            run.faults.begin("two disks take no content", &format!("replicas {two:?}, ENOSPC"));
        let refused = push_all(run, round, third).await?;
        run.figure("refused_pushes", refused);

        // What the third one alone may have taken goes with it.
        run.kill(third)?;
        run.cluster()?.wipe(third)?;
        run.faults.injected("lost disk", &format!("replica {third}"));
        let mut hits = 0;
        for index in &two {
            hits += run.cluster()?.disk(*index)?.repair();
        }
        run.faults.end(full);
        run.faults.note(&format!("content was refused {hits} times by the disks"));
        // What was acknowledged is on one of the two, or it is gone.
        let (ledger, blobs) = (run.ledger.clone(), run.ledger.kept_blobs());
        check_copies(&ledger, run.cluster()?, &two, &blobs, 1)?;
        ensure_shown!(hits > 0, "the full disks were never asked to take anything");
        run.writes_resume(&two).await?;
        run.restart_all().await?;
        run.whole_again(third).await?;
        for index in 0..3 {
            pushes_again(run, round, index).await?;
        }
    }
    Ok(())
}

/// Pushes blobs through all replicas. Whatever is acknowledged goes into the ledger, and must be found at the end.
async fn push_all(run: &mut Run, round: u64, third: usize) -> Result<u64> {
    let mut refused = 0;
    for number in 0..PUSHES {
        // Most of them to the one that takes bytes.
        let index = if number % 3 == 2 { (third + 1) % 3 } else { third };
        let client = run.client(index)?;
        let blob = Blob::random(run.seed ^ (round << 32) ^ number, 20_000);
        let Ok(upload) = client.open_upload(REPOSITORY).await else {
            refused += 1;
            continue;
        };
        let answer = client.finish(&upload, &blob.digest, blob.bytes.clone()).await;
        if run.ledger.judge_write(answer, &[201]).is_acknowledged() {
            run.ledger.keep_blob(REPOSITORY, &blob.digest);
            let what = format!(
                "{} was acknowledged through replica {index} while replica {third} alone took bytes",
                blob.digest
            );
            run.faults.note(&what);
        } else {
            refused += 1;
        }
    }
    Ok(refused)
}

async fn pushes_again(run: &mut Run, round: u64, index: usize) -> Result<()> {
    let blob = Blob::random(run.seed ^ (round << 32) ^ (1_000 + index as u64), 20_000);
    let deadline = HEAL_DEADLINE.min(Duration::from_secs(20));
    run.pushes_again(index, REPOSITORY, &blob, deadline).await
}
