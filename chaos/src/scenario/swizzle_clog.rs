//! Row 9: hosts fall silent one by one, and speak again in another order.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use rand::RngExt as _;

use super::{Lane, Needs, Run, Scenario};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "swizzle-clog",
    rows: &[9],
    hypothesis: "whatever set of hosts falls silent, in whatever order they come back, the replicas become one again",
    fault: "each replica is a host of its own; a random set of hosts loses all links to other replicas, one by one, \
            and gets them back in a random order",
    given: "three replicas (five in the full form), each a host of its own, reach each other; images are pushed and \
            tags move",
    abort: "two replicas lead in the same term, or writes do not go on within a minute after the last link is back",
    recovery: "writes go on within 10 s of the last link's return, without a restart of anything; all replicas agree \
               within 90 s",
    rollback: "on a cluster of one's own: delete the rules that drop packets on every host",
    invariants: &[Invariant::I1, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["clog"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    let replicas = run.of(3, 5);
    run.full_copies = replicas == 3;
    run.start(ClusterOptions::default().replicas(replicas)).await?;
    run.load(LoadOptions::images_and_tags(replicas, run.of(128 << 10, 8 << 20))).await?;
    let (short, long) = (Duration::from_millis(100), Duration::from_millis(1_500));
    for _ in 0..run.of(2, 15) {
        run.work().await?;
        let count = run.random.random_range(1..=replicas);
        let mut clogged = Vec::new();
        let mut faults = BTreeMap::new();
        for _ in 0..count {
            let left: Vec<usize> = (0..replicas).filter(|index| !clogged.contains(index)).collect();
            let host = run.choose(&left)?;
            run.network()?.clog(host)?;
            clogged.push(host);
            if clogged.len() * 2 >= replicas {
                run.majority_gone();
            }
            faults.insert(host, run.faults.begin("clog", &format!("replica {host}")));
            run.last(short, long).await;
        }
        while !clogged.is_empty() {
            let host = run.choose(&clogged)?;
            clogged.retain(|index| *index != host);
            run.network()?.unclog(host, &clogged)?;
            if let Some(fault) = faults.remove(&host) {
                run.faults.end(fault);
            }
            run.last(short, long).await;
        }
        run.healed();
        run.majority_back();
        let all: Vec<usize> = (0..replicas).collect();
        run.writes_resume(&all).await?;
        run.cluster()?.wait_ready(super::run::HEAL_DEADLINE).await?;
    }
    Ok(())
}
