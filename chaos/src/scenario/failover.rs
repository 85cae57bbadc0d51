//! How long nobody can write after the leader has died; beside etcd, which has the same job on the same machine.

use std::time::Duration;

use anyhow::Result;

use super::{Lane, Length, Needs, Run, Scenario, milliseconds};
use crate::{
    etcd::Etcd,
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    report::quantiles,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "failover",
    rows: &[1],
    hypothesis: "when the leader dies, writes resume within seconds: not much later than with etcd",
    fault: "`kill -9` of the leader under writes of tags, again and again; in the full form the same is then done to \
            three members of etcd 3.4",
    given: "three replicas follow one leader; tags are written all the time",
    abort: "no replica leads a minute after the kill",
    recovery: "a write is acknowledged within 10 s of the kill (the figures are in the report); the old leader has \
               caught up within 90 s of its start",
    rollback: "the members of etcd in the full form end with the program too. On a cluster of one's own: start the \
               killed replica again",
    invariants: &[Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["kill -9"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Loopback("etcd, which its figures are compared with, is there as well"),
    body: |run| Box::pin(body(run)),
};

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions { tag_readers: 0, ..LoadOptions::tags(3) }).await?;
    let kills = run.of(3, 20);
    for _ in 0..kills {
        run.work().await?;
        let leader = run.leader().await?;
        let rest: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        run.kill(leader)?;
        run.writes_resume(&rest).await?;
        run.restart_all().await?;
        run.cluster()?.wait_caught_up(leader, super::run::HEAL_DEADLINE).await?;
    }
    run.stop_load().await?;
    if run.length == Length::Full {
        let times = beside(run, kills).await.or_not_shown()?;
        let times: Vec<u64> = times.into_iter().map(milliseconds).collect();
        run.figure("etcd 3.4 resumed after", quantiles(&times));
        run.figure("etcd 3.4 resumed ms", times);
    }
    Ok(())
}

/// The same kills, the same clients, the same waits, with etcd.
async fn beside(run: &mut Run, kills: usize) -> Result<Vec<Duration>> {
    let mut etcd = Etcd::start().await?;
    let mut times = Vec::new();
    for _ in 0..kills {
        let writes = etcd.write_for_a_while().await?;
        let took = etcd.fail_over().await?;
        run.faults.note(&format!("etcd: {writes} writes, then a write again after {took:?}"));
        times.push(took);
        etcd.restart().await?;
    }
    etcd.stop()?;
    Ok(times)
}
