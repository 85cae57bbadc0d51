//! Row 4: the network falls apart around the leader.

use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::Method;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    not_shown::ensure_shown,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Invariant, Kept, LoadOptions, Reading},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "partition-leader",
    rows: &[4],
    hypothesis: "a leader without its followers takes no write and gives no old tag for the newest, but still gives \
                 what it holds; with a majority on its side nobody notices",
    fault: "each replica is a host of its own; packets of the leader alone, then of a follower alone, vanish on \
            their way to the other replicas. Clients reach all of them",
    given: "three replicas, each a host of its own, reach each other and follow one leader; clients reach all of \
            them",
    abort: "the side without a majority acknowledges a write, or the side with one takes none for longer than a \
            minute",
    recovery: "the side with a majority writes within 10 s of the cut; when the cut ends all are ready within 90 s \
               and list the same tags",
    rollback: "on a cluster of one's own: delete the rule that drops the packets (or the chaos resource that made \
               it)",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["leader in the minority", "leader in the majority"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

/// So many blobs are asked for.
const HELD: usize = 20;
/// Until a replica that is cut off knows it: its lease and a deadline of a write.
const NOTICE_DEADLINE: Duration = Duration::from_secs(30);

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images_and_tags(3, run.of(128 << 10, 8 << 20))).await?;
    for round in 0..run.of(2, 12) {
        run.work().await?;
        let leader = run.leader().await?;
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        let alone = if round % 2 == 0 { leader } else { run.choose(&others)? };
        let rest: Vec<usize> = (0..3).filter(|index| *index != alone).collect();
        let held = held_and_known(run, alone).await?;
        run.network()?.split(&[alone])?;
        let side =
            if alone == leader { "leader in the minority" } else { "leader in the majority" };
        let fault = run.faults.begin(side, &format!("replica {alone} is cut off, {leader} led"));
        run.writes_resume(&rest).await?;
        the_minority_is_honest(run, alone, &held).await?;
        run.work().await?;
        run.network()?.heal()?;
        run.faults.end(fault);
        run.healed();
        run.cluster()?.wait_ready(super::run::HEAL_DEADLINE).await?;
    }
    Ok(())
}

/// Some blobs whose files a replica has, and of which it has heard that they were committed. The file alone comes
/// earlier: a holder stores a blob before the push is acknowledged.
async fn held_and_known(run: &mut Run, index: usize) -> Result<Vec<Kept>> {
    let client = run.client(index)?;
    let mut held = Vec::new();
    for kept in run.ledger.kept().into_iter().filter(|kept| !kept.manifest) {
        let path = run.cluster()?.replica(index).blob_path(&kept.digest)?;
        let url = format!("/v2/{}/blobs/{}", kept.repository, kept.digest);
        // One that does not answer just now is no use.
        let known = client.head(&url).await.is_ok_and(|answer| answer.status == 200);
        if known && path.is_file() {
            held.push(kept);
        }
        if held.len() == HELD {
            break;
        }
    }
    ensure_shown!(!held.is_empty(), "replica {index} holds nothing: there is nothing to try");
    Ok(held)
}

/// A replica that is cut off gives the blobs that it has, and refuses writes in a way that clients understand.
async fn the_minority_is_honest(run: &mut Run, alone: usize, held: &[Kept]) -> Result<()> {
    let client = run.client(alone)?;
    let path = "/v2/chaos/tags/blobs/uploads/";
    let ledger = run.ledger.clone();
    wait_until("the replica that is cut off refuses writes", NOTICE_DEADLINE, || async {
        let answer = client.call(Method::POST, path).await?;
        ensure!(answer.status == 503, "it answers {}", answer.describe());
        answer.need_header("retry-after")?;
        ledger.judge_error(&answer);
        Ok(())
    })
    .await?;
    for kept in held {
        match ledger.read(&client, kept).await {
            Reading::Found(_) => {}
            other => {
                let what =
                    format!("replica {alone}, cut off, did not give {}: {other:?}", kept.digest);
                ledger.violated(Invariant::I8, what);
            }
        }
    }
    run.faults.note(&format!("replica {alone} gave {} blobs and refused writes", held.len()));
    Ok(())
}
