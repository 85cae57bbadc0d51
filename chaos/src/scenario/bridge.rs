//! Row 6: who reaches whom depends on whom one asks.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bridge",
    rows: &[6],
    hypothesis: "two replicas that do not reach each other while a third reaches both, or clients that do not reach a \
                 replica that all others reach, cost nobody a blob or a pull",
    fault: "each replica is a host of its own; the link between the leader and another vanishes; or clients do not reach a \
            replica that its peers reach; or both; or peers do not reach it and clients do",
    given: "three replicas, each a host of its own, reach each other and are reached; images are pushed and pulled",
    abort: "two replicas lead in the same term, or no replica gives a blob that was acknowledged",
    recovery: "writes go on within 10 s through whoever reaches a majority; all replicas agree and hold everything within \
               90 s of the end",
    rollback: "on a cluster of one's own: delete the rules that drop packets on every host",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I8],
    fires: &["bridge", "clients shut out", "peers cut off"],
    floor_per_second: 2.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::images(run.of(128 << 10, 8 << 20))).await?;
    for round in 0..run.of(4, 20) {
        run.progress(20).await?;
        let leader = run.leader().await?;
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        let other = run.choose(&others)?;
        let middle = others.into_iter().find(|index| *index != other).context("a third")?;
        let shut = if run.toss() { leader } else { other };
        let (faults, reached) = match round % 4 {
            0 => (vec![cut(run, leader, other)?], vec![leader, middle]),
            1 => (vec![shut_out(run, shut)?], left_without(shut)),
            2 => {
                // Clients reach only those that do not reach each other.
                (vec![cut(run, leader, other)?, shut_out(run, middle)?], vec![leader, other])
            }
            _ => {
                run.network()?.clog(shut)?;
                let what = format!("replica {shut}; clients reach it");
                (vec![run.faults.begin("peers cut off", &what)], left_without(shut))
            }
        };
        run.writes_resume(&reached).await?;
        let longest = run.of(Duration::from_secs(2), Duration::from_secs(15));
        run.last(Duration::from_secs(1), longest).await;
        run.network()?.heal()?;
        faults.into_iter().for_each(|fault| run.faults.end(fault));
        run.healed();
        run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    }
    Ok(())
}

fn left_without(index: usize) -> Vec<usize> {
    (0..3).filter(|other| *other != index).collect()
}

fn cut(run: &mut Run, one: usize, other: usize) -> Result<super::faults::FaultId> {
    run.network()?.bridge(one, other)?;
    Ok(run.faults.begin("bridge", &format!("replica {one}, the leader, and {other}")))
}

fn shut_out(run: &mut Run, index: usize) -> Result<super::faults::FaultId> {
    let registry = run.cluster()?.registry_url(index);
    run.network()?.shut_out_clients(index, &registry)?;
    Ok(run.faults.begin("clients shut out", &format!("of replica {index}")))
}
