//! Faults of all kinds together, drawn from the seed.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rand::RngExt as _;

use super::{
    Lane, Needs, Run, Scenario,
    clock_jump::{clock_file, with_clock},
    faults::FaultId,
    run::HEAL_DEADLINE,
};
use crate::{
    cluster::Cluster,
    nemesis::{KINDS, Links, Nemesis, Weather, draw_together},
    options::ClusterOptions,
    wait::wait_until,
    workload::{Churn, Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "storm",
    rows: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 22],
    hypothesis: "whatever happens together, nothing that was acknowledged is lost or wrong, and tags are those of one \
                 register; and what a majority can do it does",
    fault: "one to three at a time, drawn from the seed: kill -9 of one or of all, restart, SIGSTOP, a host cut off, one-way \
            cuts, bridges, flapping links, packet loss, clients shut out, slow, narrow, resetting, damaging or dead \
            links, wall clocks that jump",
    given: "three replicas (five in the full form), each a host of its own, whose links pass proxies; images are pushed, in \
            chunks too, pulled and deleted, and tags move",
    abort: "two replicas lead in the same term, or an acknowledged blob is gone",
    recovery: "while a majority is unhurt writes go on within 20 s; after the end all replicas agree and hold everything \
               within 90 s",
    rollback: "end the program: namespaces, proxies and clocks go with it, and with them the replicas",
    invariants: &[
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I6,
        Invariant::I7,
        Invariant::I8,
    ],
    fires: &[ANY, MANY, COLLECTIONS],
    floor_per_second: 5.0,
    lane: Lane::Smoke,
    needs: Needs::Network,
    body: |run| Box::pin(body(run)),
};

/// Counted for each round in which something was done.
const ANY: &str = "faults together";
/// Counted once for all the different kinds that the seed drew.
const MANY: &str = "many kinds";
/// Counted once for all rounds of collection that have removed something.
const COLLECTIONS: &str = "collections";
/// What replicas write to their logs when they have.
const COLLECTED: &str = "collected what nothing references any more";
/// So short that blobs are collected all the time. A clock that jumps makes it shorter still, and then a push may be too
/// late with its manifest; what a manifest names stays whatever the clocks say.
const GRACE_SECONDS: u64 = 3;
/// Rounds without which a seed has not shown much.
const ROUNDS_MIN: usize = 3;
const FLAP: Duration = Duration::from_millis(200);

async fn body(run: &mut Run) -> Result<()> {
    let replicas = run.of(3, 5);
    run.full_copies = replicas == 3;
    let grace = GRACE_SECONDS.to_string();
    let options = ClusterOptions::default()
        .replicas(replicas)
        .setting("gc", "grace_seconds", &grace)
        .setting("gc", "interval_seconds", "1");
    run.start_on_far_hosts(options, with_clock).await?;
    let load = LoadOptions::images_and_tags(replicas, run.of(128 << 10, 4 << 20));
    run.load(load.and_chunked(2).with_collection()).await?;
    let churn = Churn::start(&run.targets, &run.ledger, Duration::ZERO, run.seed);
    let (start, time) = (Instant::now(), run.of(Duration::from_secs(10), Duration::from_secs(300)));
    let mut kinds = std::collections::BTreeSet::new();
    let (mut rounds, kinds_min) = (0, run.of(4, KINDS.len()));
    while start.elapsed() < time || rounds < ROUNDS_MIN || kinds.len() < kinds_min {
        rounds += 1;
        run.progress(20).await?;
        let together = draw_together(replicas, &mut run.random)?;
        kinds.extend(together.iter().map(Nemesis::kind));
        round(run, replicas, together).await?;
    }
    run.faults.injected(MANY, &format!("{} of them", kinds.len()));
    // A leader whose clock is behind collects nothing; now all clocks are right.
    let cluster = &*run.cluster()?;
    let collections = wait_until("something was collected", HEAL_DEADLINE, || async {
        let collections = collections(cluster);
        ensure!(collections > 0, "no leader says so");
        Ok(collections)
    })
    .await?;
    run.faults.injected(COLLECTIONS, &format!("{collections} rounds"));
    run.figure("kinds of faults", kinds.into_iter().collect::<Vec<_>>().join(", "));
    run.figure("churned", format!("{:?}", churn.churned()));
    churn.stop().await?;
    Ok(())
}

/// How often the leaders have collected something.
fn collections(cluster: &Cluster) -> usize {
    let logs = (0..cluster.len()).map(|index| cluster.replica(index).log_text());
    logs.map(|log| log.matches(COLLECTED).count()).sum()
}

/// Some faults begin, go on and end, each when it likes.
async fn round(run: &mut Run, replicas: usize, mut together: Vec<Nemesis>) -> Result<()> {
    let (short, long) = (Duration::from_millis(100), Duration::from_millis(1_500));
    let round = run.faults.begin(ANY, &format!("{} of them", together.len()));
    let mut open: Vec<(Nemesis, Option<FaultId>)> = Vec::new();
    let mut left: Vec<usize> = (0..replicas).collect();
    while let Some(next) = together.pop() {
        let hurt = next.hurts(replicas);
        left.retain(|index| !hurt.contains(index));
        let fault = begin(run, &next).await?;
        open.push((next, fault));
        run.last(short, long).await;
    }
    // Only what a majority of unhurt replicas can do is promised.
    if left.len() > replicas / 2 {
        run.writes_resume(&left).await?;
    } else {
        run.majority_gone();
    }
    let longest = run.of(Duration::from_secs(2), Duration::from_secs(12));
    run.last(short, longest).await;
    while !open.is_empty() {
        let index = run.random.random_range(0..open.len());
        let (nemesis, fault) = open.swap_remove(index);
        end(run, &nemesis).await?;
        if let Some(fault) = fault {
            run.faults.end(fault);
        }
        run.last(Duration::ZERO, short).await;
    }
    run.network()?.heal()?;
    run.links.clear();
    run.restart_all().await?;
    run.faults.end(round);
    run.writes_resume(&(0..replicas).collect::<Vec<_>>()).await?;
    run.cluster()?.wait_ready(HEAL_DEADLINE).await
}

/// Begins it. Nothing is returned for what [`Run`] keeps account of by itself.
async fn begin(run: &mut Run, nemesis: &Nemesis) -> Result<Option<FaultId>> {
    match nemesis {
        Nemesis::Kill(victim) => {
            run.kill(*victim)?;
            return Ok(None);
        }
        Nemesis::KillAll => {
            for index in run.members.clone() {
                run.kill(index)?;
            }
        }
        Nemesis::Restart(victim) => run.cluster()?.term(*victim)?,
        Nemesis::Pause(victim) => run.cluster()?.pause(*victim)?,
        Nemesis::CutOff(victim) => run.network()?.clog(*victim)?,
        Nemesis::OneWay(victim, side) => run.network()?.cut_side(*victim, *side)?,
        Nemesis::Bridge(one, other) => run.network()?.bridge(*one, *other)?,
        Nemesis::Loss(victim, percent) => run.network()?.lose(*victim, *percent)?,
        Nemesis::ShutOut(victim) => {
            let registry = run.cluster()?.registry_url(*victim);
            run.network()?.shut_out_clients(*victim, &registry)?;
        }
        Nemesis::BadLinks(victim, weather) => Links::set(run.links.of_replica(*victim), weather),
        Nemesis::Clock(victim, seconds) => {
            let file = clock_file(run.cluster()?.folder(), *victim);
            fs::write(file, format!("{seconds:+}\n"))?;
        }
        Nemesis::Flap(_) => {}
    }
    let fault = run.faults.begin(nemesis.kind(), &nemesis.words());
    if let Nemesis::Flap(victim) = nemesis {
        let links: Vec<(usize, usize)> = run
            .members
            .iter()
            .filter(|other| *other != victim)
            .map(|other| (*victim, *other))
            .collect();
        let time = run.of(Duration::from_secs(1), Duration::from_secs(5));
        run.network()?.flap(&links, FLAP, FLAP, time).await?;
    }
    Ok(Some(fault))
}

async fn end(run: &mut Run, nemesis: &Nemesis) -> Result<()> {
    match nemesis {
        // Started again with all others when the round is over.
        Nemesis::Kill(_) | Nemesis::KillAll | Nemesis::Flap(_) => {}
        Nemesis::Restart(victim) => {
            let cluster = run.cluster()?;
            let status = cluster.wait_exit(*victim, HEAL_DEADLINE).await?;
            ensure!(status.success(), "replica {victim} stopped with {status}");
            cluster.restart(*victim)?;
        }
        Nemesis::Pause(victim) => run.cluster()?.resume(*victim)?,
        Nemesis::CutOff(victim) | Nemesis::OneWay(victim, _) => run.network()?.join_all(*victim)?,
        Nemesis::Bridge(one, other) => run.network()?.join(*one, *other)?,
        Nemesis::Loss(victim, _) => run.network()?.lose_nothing(*victim)?,
        Nemesis::ShutOut(victim) => run.network()?.let_clients_in(*victim)?,
        Nemesis::BadLinks(victim, _) => {
            Links::set(run.links.of_replica(*victim), &Weather::default());
        }
        Nemesis::Clock(victim, _) => {
            fs::write(clock_file(run.cluster()?.folder(), *victim), "+0\n")?;
        }
    }
    Ok(())
}
