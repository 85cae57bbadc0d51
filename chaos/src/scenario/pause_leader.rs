//! Row 3: the leader stands still and does not know it.

use std::time::Duration;

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "pause-leader",
    rows: &[3],
    hypothesis: "a leader that was stopped and wakes up believes that it still leads; it must not answer from what \
                 it knew",
    fault: "SIGSTOP of the leader for 0.3 to 5 s (30 s in the full form), then SIGCONT, under reads and writes of tags",
    given: "three replicas follow one leader; tags are written through all of them and read from each",
    abort: "a tag is read that is older than one that was acknowledged before: one such answer is the end of the \
            experiment",
    recovery: "another replica leads within seconds of a pause that is longer than an election; the old leader \
               follows it as soon as it wakes up, without a restart",
    rollback: "on a cluster of one's own: `kill -CONT` of the process that stands still",
    invariants: &[Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["SIGSTOP"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Nothing,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::tags(3)).await?;
    for round in 0..run.of(4, 15) {
        run.work().await?;
        let leader = run.leader().await?;
        run.cluster()?.pause(leader)?;
        let fault = run.faults.begin("SIGSTOP", &format!("replica {leader}, the leader"));
        if round % 2 == 0 {
            // Shorter and longer than the lease and an election.
            run.last(Duration::from_millis(300), Duration::from_millis(2_500)).await;
        } else {
            // Until somebody else leads.
            let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
            run.writes_resume(&others).await?;
            let longest = run.of(Duration::from_secs(1), Duration::from_secs(25));
            run.last(Duration::ZERO, longest).await;
        }
        run.cluster()?.resume(leader)?;
        run.faults.end(fault);
    }
    run.work().await
}
