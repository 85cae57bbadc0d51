//! Row 5: a host that hears and is not heard, or the reverse.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    nemesis::Side,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-way-cut",
    rows: &[5],
    hypothesis: "a replica that hears and is not heard, or is heard and does not hear, gives no old tag for the newest, \
                 and does not keep the others busy with elections",
    fault: "each replica is a host of its own; what it sends, or what is sent to it, or one direction of one link \
            vanishes: of the leader, then of a follower",
    given: "three replicas, each a host of its own, reach each other; tags move all the time",
    abort: "writes do not go on within a minute after the cut, or the term grows with every second",
    recovery: "with a majority that reach each other both ways writes go on within 10 s; the term grows by one election \
               for each cut of the leader, and hardly at all otherwise; all replicas agree within 90 s of the end",
    rollback: "on a cluster of one's own: delete the rules that drop packets on every host",
    invariants: &[Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &["outbound cut", "inbound cut", "half a link"],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

/// An election that is won at once is one term; a split vote costs another.
const TERMS_PER_CUT_OF_LEADER: u64 = 2;
/// Elections that nothing calls for, such as for want of a processor: at most one in this time.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One side of a host, towards all others.
    Side(Side),
    /// What it sends to one other host.
    HalfALink,
}

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    run.load(LoadOptions::tags(3)).await?;
    let shapes = [Shape::Side(Side::Outbound), Shape::Side(Side::Inbound), Shape::HalfALink];
    let (start, first) = (Instant::now(), highest_term(run).await?);
    let mut allowed = 0;
    for round in 0..run.of(4, 24) {
        run.work().await?;
        let leader = run.leader().await?;
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        let shape = shapes.get(round % shapes.len()).copied().context("a shape")?;
        // The short form ends with what it began with, of a follower.
        let of_leader = round < shapes.len() || round % 2 == 0;
        let victim = if of_leader { leader } else { run.choose(&others)? };
        let who = if of_leader { "the leader" } else { "a follower" };
        let fault = match shape {
            Shape::Side(side) => {
                run.network()?.cut_side(victim, side)?;
                let what = format!("replica {victim}, {who}");
                run.faults.begin(&format!("{} cut", side.word()), &what)
            }
            Shape::HalfALink => {
                let rest: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
                let other = run.choose(&rest)?;
                run.network()?.cut_one_way(victim, other)?;
                let what = format!("from replica {victim}, {who}, to {other}");
                run.faults.begin("half a link", &what)
            }
        };
        allowed += if of_leader { TERMS_PER_CUT_OF_LEADER } else { 0 };
        let rest: Vec<usize> = (0..3).filter(|index| *index != victim).collect();
        run.writes_resume(&rest).await?;
        let longest = run.of(Duration::from_secs(2), Duration::from_secs(15));
        run.last(Duration::from_secs(1), longest).await;
        run.network()?.heal()?;
        run.faults.end(fault);
        run.healed();
        run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    }
    let grown = highest_term(run).await?.saturating_sub(first);
    let allowed = allowed + start.elapsed().as_secs() / QUIET.as_secs() + 1;
    run.figure("terms", format!("{grown} more, {allowed} are fine"));
    if grown > allowed {
        let what = format!("the term grew by {grown} in {:?}: an election storm", start.elapsed());
        run.ledger.violated(Invariant::I8, what);
    }
    Ok(())
}

async fn highest_term(run: &mut Run) -> Result<u64> {
    let mut highest = 0;
    for index in 0..3 {
        highest = highest.max(run.status(index).await?.term);
    }
    Ok(highest)
}
