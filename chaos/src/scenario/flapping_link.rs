//! Row 7: links that come and go, and links that lose what they carry.

use std::time::Duration;

use anyhow::Result;

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    not_shown::ensure_shown,
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "flapping-link",
    rows: &[7],
    hypothesis: "links that come and go five times a second, or lose 30 % of what they carry, cost nobody a byte, and \
                 nobody tries again without measure",
    fault: "each replica is a host of its own; all links of the leader, then of a follower, are cut for 200 ms and \
            joined for 200 ms, again and again; 30 % of the packets between replicas vanish by chance",
    given: "three replicas, each a host of its own, reach each other; images are pushed, in chunks too, and pulled",
    abort: "the packets between replicas multiply while nobody asks for anything, or an acknowledged blob is gone",
    recovery: "writes go on within 10 s after the links are good again; all replicas agree and hold everything within \
               90 s",
    rollback: "on a cluster of one's own: delete the rules that drop packets on every host",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I5, Invariant::I8, Invariant::I9],
    fires: &["flapping links", "30 % loss"],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

const FLAP: Duration = Duration::from_millis(200);
const LOSS_PERCENT: u8 = 30;
/// Packets of all replicas per second while nobody asks for anything: a replica that tries again without a pause sends
/// tens of thousands.
const PACKETS_MAX: f64 = 2_000.0;

async fn body(run: &mut Run) -> Result<()> {
    run.start(ClusterOptions::default()).await?;
    let idle = packets_while(run, None).await?;
    let leader = run.leader().await?;
    let flapping = packets_while(run, Some(leader)).await?;
    run.figure("packets per second, idle", idle.round());
    run.figure("packets per second, idle and flapping", flapping.round());
    if flapping > PACKETS_MAX {
        let what =
            format!("{flapping:.0} packets per second over flapping links, {idle:.0} before");
        run.ledger.violated(Invariant::I9, what);
    }
    run.cluster()?.wait_ready(HEAL_DEADLINE).await?;

    run.load(LoadOptions::images(run.of(128 << 10, 2 << 20)).and_chunked(2)).await?;
    for round in 0..run.of(2, 12) {
        run.progress(20).await?;
        let time = run.of(Duration::from_secs(3), Duration::from_secs(20));
        if round % 2 == 1 {
            // Over such links a majority need not get anything done.
            run.majority_gone();
            let fault = run.faults.begin("30 % loss", "of what goes from replica to replica");
            for host in 0..3 {
                run.network()?.lose(host, LOSS_PERCENT)?;
            }
            tokio::time::sleep(time).await;
            run.network()?.heal()?;
            run.faults.end(fault);
        } else {
            let leader = run.leader().await?;
            let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
            let victim = if round % 4 == 0 { leader } else { run.choose(&others)? };
            if victim == leader {
                run.majority_gone();
            }
            flap(run, victim, time).await?;
        }
        run.healed();
        run.majority_back();
        run.writes_resume(&[0, 1, 2]).await?;
        run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    }
    Ok(())
}

async fn flap(run: &mut Run, victim: usize, time: Duration) -> Result<()> {
    let links: Vec<(usize, usize)> =
        (0..3).filter(|other| *other != victim).map(|other| (victim, other)).collect();
    let fault = run.faults.begin("flapping links", &format!("of replica {victim}"));
    let count = run.network()?.flap(&links, FLAP, FLAP, time).await?;
    run.faults.end(fault);
    ensure_shown!(count > 0, "the links were never cut");
    Ok(())
}

/// Packets per second over all links of the hosts while no client asks for anything.
async fn packets_while(run: &mut Run, flapping: Option<usize>) -> Result<f64> {
    let time = run.of(Duration::from_millis(2_500), Duration::from_secs(10));
    let (before, start) = (run.network()?.packets()?, std::time::Instant::now());
    match flapping {
        Some(victim) => flap(run, victim, time).await?,
        None => tokio::time::sleep(time).await,
    }
    let packets = run.network()?.packets()?.saturating_sub(before);
    Ok(packets as f64 / start.elapsed().as_secs_f64())
}
