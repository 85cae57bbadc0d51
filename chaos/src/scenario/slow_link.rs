//! Rows 7 and 8: links that are long, or narrow.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lane, Needs, Run, Scenario, run::HEAL_DEADLINE};
use crate::{
    nemesis::{Links, Weather},
    options::ClusterOptions,
    workload::{Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow-link",
    rows: &[7, 8],
    hypothesis: "replicas as far from each other as continents work as ever; one that is too far or behind a narrow link is \
                 left behind, and nobody waits for it",
    fault: "proxies on all links: 75 ms more or less 50 each way between all replicas, 1 s each way to and from one, \
            1 Mbit/s to and from one; the same 75 ms between clients and replicas",
    given: "three replicas, each a host of its own, whose links pass proxies; images are pushed, in chunks too, and pulled, and tags move",
    abort: "writes do not go on within a minute with a majority on good links",
    recovery: "writes go on within 10 s through all of it; what was left behind holds everything within 90 s of the end",
    rollback: "end the program: the proxies go with it, and with them the replicas",
    invariants: &[Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I5, Invariant::I8],
    fires: &[
        "75 ms between replicas",
        "1 s to one replica",
        "1 Mbit/s to one replica",
        "75 ms to clients",
    ],
    floor_per_second: 1.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

const FAR: Duration = Duration::from_millis(75);
const FAR_JITTER: Duration = Duration::from_millis(50);
const TOO_FAR: Duration = Duration::from_secs(1);
/// 1 Mbit/s.
const NARROW: u64 = 125_000;

async fn body(run: &mut Run) -> Result<()> {
    run.start_on_far_hosts(ClusterOptions::default(), |_| Ok(())).await?;
    let layer_max = run.of(128 << 10, 2 << 20);
    run.load(LoadOptions::images_and_tags(3, layer_max).and_chunked(1)).await?;
    let kinds = SCENARIO.fires;
    for round in 0..run.of(4, 24) {
        run.progress(20).await?;
        let leader = run.leader().await?;
        let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
        let kind = kinds.get(round % kinds.len()).copied().context("a kind")?;
        // In turn the leader and a follower.
        let victim = if round / 2 % 2 == 0 { leader } else { run.choose(&others)? };
        let mut left = vec![0, 1, 2];
        let fault = match round % kinds.len() {
            0 => {
                Links::set(run.links.between_replicas(), &Weather::late(FAR, FAR_JITTER));
                run.faults.begin(kind, "more or less 50 ms, each way")
            }
            3 => {
                for index in 0..3 {
                    run.links.before_clients(index)?.set_both(&Weather::late(FAR, FAR_JITTER));
                }
                run.faults.begin(kind, "more or less 50 ms, each way")
            }
            narrow => {
                let weather = if narrow == 1 {
                    Weather::late(TOO_FAR, Duration::ZERO)
                } else {
                    Weather::narrow(NARROW)
                };
                Links::set(run.links.of_replica(victim), &weather);
                left.retain(|index| *index != victim);
                let who = if victim == leader { "the leader" } else { "a follower" };
                run.faults.begin(kind, &format!("replica {victim}, {who}"))
            }
        };
        run.writes_resume(&left).await?;
        let longest = run.of(Duration::from_secs(2), Duration::from_secs(15));
        run.last(Duration::from_secs(1), longest).await;
        run.links.clear();
        run.faults.end(fault);
        run.healed();
        run.cluster()?.wait_ready(HEAL_DEADLINE).await?;
    }
    Ok(())
}
