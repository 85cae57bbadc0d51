//! Faults of all kinds together, drawn from the seed.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use tokio::time::timeout;

use super::{
    Lane, Needs, Run, Scenario,
    clock_jump::{clock_file, clock_launch, with_clock},
    disks::GROWING,
    faults::FaultId,
    run::HEAL_DEADLINE,
};
use crate::{
    cluster::Cluster,
    disk::{Call, DiskFault, Effect},
    nemesis::{KINDS, Links, Nemesis, Weather, draw_together},
    not_shown::OrNotShown as _,
    options::ClusterOptions,
    wait::wait_until,
    workload::{Churn, Invariant, LoadOptions},
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "storm",
    rows: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 22, 23, 28, 29],
    hypothesis: "whatever happens together, nothing that was acknowledged is lost or wrong, and tags are those of one \
                 register; and what a majority can do it does",
    fault: "one to three at a time, drawn from the seed: kill -9 of one or of all, restart, SIGSTOP, a host cut off, one-way \
            cuts, bridges, flapping links, packet loss, clients shut out, slow, narrow, resetting, damaging or dead \
            links, wall clocks that jump, reads of content that fail with EIO, no space for content, a start with 256 MiB \
            of memory and 256 open files, a member removed and a new one in its place, leadership handed over",
    given: "three replicas (five in the full form), each a host of its own, whose links pass proxies, on a disk that can fail; \
            images are pushed, in chunks too, pulled and deleted, and tags move",
    abort: "two replicas lead in the same term, or an acknowledged blob is gone",
    recovery: "while a majority is unhurt writes go on within 20 s; a member is replaced, and whoever lacks copies has them \
               again, within 90 s; after the end all replicas agree and hold everything within 90 s",
    rollback: "end the program: namespaces, proxies, disks, cgroups and clocks go with it, and with them the replicas",
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
    needs: Needs::NetworkAndFuse,
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
/// Where content is on a disk.
const CONTENT: [&str; 2] = ["blobs", "uploads"];
/// What a replica has that may have little.
const MEMORY: u64 = 256 << 20;
const FILES: u64 = 256;
/// What a transfer to the leader says.
const LEADS_ALREADY: &str = "leads already";
/// How long an operator's command is waited for while faults go on.
const COMMAND_MAX: Duration = Duration::from_secs(4);

async fn body(run: &mut Run) -> Result<()> {
    let replicas = run.of(3, 5);
    run.full_copies = replicas == 3;
    let grace = GRACE_SECONDS.to_string();
    let options = ClusterOptions::default()
        .replicas(replicas)
        .setting("gc", "grace_seconds", &grace)
        .setting("gc", "interval_seconds", "1");
    run.start_on_far_hosts(options, |cluster| {
        with_clock(cluster)?;
        (0..cluster.len()).try_for_each(|index| cluster.give_disk(index))
    })
    .await?;
    let load = LoadOptions::images_and_tags(replicas, run.of(128 << 10, 4 << 20));
    run.load(load.and_chunked(2).with_collection()).await?;
    let churn = Churn::start(&run.targets, &run.ledger, Duration::ZERO, run.seed);
    let (start, time) = (Instant::now(), run.of(Duration::from_secs(10), Duration::from_secs(300)));
    let mut kinds = BTreeSet::new();
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
    if together.iter().any(Nemesis::takes_copies)
        && let Err(why) = all_whole(run).await
    {
        // On a busy machine repair may never have caught up while clients push. Whether it does is asked at the end.
        run.faults.note(&format!("no copies are taken: {why:#}"));
        together.retain(|one| !one.takes_copies());
        if together.is_empty() {
            return Ok(());
        }
    }
    let hurt: BTreeSet<usize> = together.iter().flat_map(|one| one.hurts(replicas)).collect();
    let left: Vec<usize> = (0..replicas).filter(|index| !hurt.contains(index)).collect();
    // Only what a majority of unhurt replicas can do is promised, and that from the first fault on.
    let majority = left.len() > replicas / 2;
    if !majority {
        run.majority_gone();
    }
    let round = run.faults.begin(ANY, &format!("{} of them", together.len()));
    let mut open: Vec<(Nemesis, Option<FaultId>)> = Vec::new();
    while let Some(next) = together.pop() {
        let fault = begin(run, &next).await?;
        open.push((next, fault));
        run.last(short, long).await;
    }
    if majority {
        run.writes_resume(&left).await?;
    }
    let longest = run.of(Duration::from_secs(2), Duration::from_secs(12));
    run.last(short, longest).await;
    // Not while links are cut: a new member has to find the others.
    let (replaced, mut open): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|(nemesis, _)| matches!(nemesis, Nemesis::Replace(_)));
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
    for (nemesis, fault) in replaced {
        end(run, &nemesis).await?;
        if let Some(fault) = fault {
            run.faults.end(fault);
        }
    }
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
        Nemesis::BadReads(victim, reads) => fail_reads(run, *victim, *reads)?,
        Nemesis::FullDisk(victim) => fill(run, *victim)?,
        Nemesis::Limits(victim) => limit(run, *victim)?,
        Nemesis::HandOver(heir) => {
            hand_over(run, nemesis, *heir).await?;
            return Ok(None);
        }
        // Both take a while.
        Nemesis::Flap(_) | Nemesis::Replace(_) => {}
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
    if let Nemesis::Replace(victim) = nemesis {
        remove(run, *victim).await?;
    }
    Ok(Some(fault))
}

async fn end(run: &mut Run, nemesis: &Nemesis) -> Result<()> {
    match nemesis {
        // Started again with all others when the round is over.
        Nemesis::Kill(_) | Nemesis::KillAll | Nemesis::Flap(_) | Nemesis::HandOver(_) => {}
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
        Nemesis::BadReads(victim, _) | Nemesis::FullDisk(victim) => {
            let hits = run.cluster()?.disk(*victim)?.repair();
            run.faults.note(&format!("{hits} calls on the disk of replica {victim} failed"));
        }
        Nemesis::Limits(victim) => unlimit(run, *victim)?,
        Nemesis::Replace(victim) => replace(run, *victim).await?,
    }
    Ok(())
}

/// Waits until nobody lacks a copy of anything, so that what a fault takes away is not the last one.
async fn all_whole(run: &mut Run) -> Result<()> {
    for index in run.members.clone() {
        run.cluster()?.wait_caught_up(index, HEAL_DEADLINE).await?;
    }
    Ok(())
}

fn fail_reads(run: &mut Run, victim: usize, reads: u64) -> Result<()> {
    run.cluster()?.disk(victim)?.inject(DiskFault {
        calls: &[Call::Read],
        below: "blobs".into(),
        effect: Effect::Error,
        which: Some(1..=reads),
    });
    Ok(())
}

fn fill(run: &mut Run, victim: usize) -> Result<()> {
    let disk = run.cluster()?.disk(victim)?;
    for below in CONTENT {
        disk.inject(DiskFault::always(GROWING, below, Effect::NoSpace));
    }
    Ok(())
}

/// `kill -9`, and a start with little of what a process needs.
fn limit(run: &mut Run, victim: usize) -> Result<()> {
    let cluster = run.cluster()?;
    cluster.kill9(victim)?;
    let files = format!("--nofile={FILES}:{FILES}");
    let launch = clock_launch(cluster.folder(), victim)?.through(&["prlimit", &files]);
    cluster.set_launch(victim, launch);
    cluster.bound_memory(victim, MEMORY).or_not_shown()?;
    cluster.restart(victim)
}

/// `kill -9`. It is started as ever, with all others, when the round is over.
fn unlimit(run: &mut Run, victim: usize) -> Result<()> {
    let cluster = run.cluster()?;
    cluster.kill9(victim)?;
    let launch = clock_launch(cluster.folder(), victim)?;
    cluster.set_launch(victim, launch);
    let killed = cluster.memory_group(victim)?.kills()?;
    ensure!(killed == 0, "replica {victim} was killed for its memory, of {MEMORY} bytes");
    Ok(())
}

/// Whoever does not lead is asked to, and may be unable to: that is told, and is no fault then.
async fn hand_over(run: &mut Run, nemesis: &Nemesis, heir: usize) -> Result<()> {
    let Some(asked) = another(run, heir)? else { return Ok(()) };
    let cluster = &*run.cluster()?;
    let name = cluster.replica(heir).name.as_str();
    let command = ["member", "transfer", name, "--yes"];
    let handed = timeout(COMMAND_MAX, cluster.operate(asked, &command)).await;
    match handed {
        Ok(Ok(said)) if said.stdout.contains(LEADS_ALREADY) => {
            run.faults.note(&format!("replica {heir} leads already"));
        }
        Ok(Ok(_)) => run.faults.injected(nemesis.kind(), &nemesis.words()),
        Ok(Err(error)) => {
            run.faults.note(&format!("leadership was not handed to replica {heir}: {error:#}"));
        }
        Err(_) => run.faults.note(&format!("replica {heir} does not lead yet")),
    }
    Ok(())
}

/// Begins the removal of a member, which clients ask no more. What does not get through now is asked for again by
/// [`replace`].
async fn remove(run: &mut Run, victim: usize) -> Result<()> {
    run.members.retain(|index| *index != victim);
    run.retarget()?;
    let asked = another(run, victim)?.context("no other member runs")?;
    let cluster = &*run.cluster()?;
    let said = match timeout(COMMAND_MAX, removed(cluster, asked, victim)).await {
        Ok(Ok(())) => format!("replica {victim} is no member any more"),
        Ok(Err(error)) => format!("replica {victim} is not removed: {error:#}"),
        Err(_) => format!("replica {victim} is not removed yet"),
    };
    run.faults.note(&said);
    Ok(())
}

/// Ends the removal, now that nothing else is wrong, and lets a new member in.
async fn replace(run: &mut Run, victim: usize) -> Result<()> {
    let asked = another(run, victim)?.context("no other member runs")?;
    let cluster = &*run.cluster()?;
    let ask = || removed(cluster, asked, victim);
    wait_until("a member is removed", HEAL_DEADLINE, ask).await?;
    let cluster = run.cluster()?;
    cluster.kill9(victim)?;
    cluster.wipe(victim)?;
    run.members.push(victim);
    run.members.sort_unstable();
    run.restart_all().await?;
    run.retarget()
}

/// Has a member removed by another one that is asked to. It is well if that has happened already.
async fn removed(cluster: &Cluster, asked: usize, victim: usize) -> Result<()> {
    let name = cluster.replica(victim).name.as_str();
    match cluster.operate(asked, &["member", "remove", name, "--now", "--yes"]).await {
        Err(error) if !format!("{error:#}").contains("no member") => Err(error),
        _ => Ok(()),
    }
}

/// Another member that runs, for a command about this one.
fn another(run: &mut Run, index: usize) -> Result<Option<usize>> {
    let members = run.members.clone();
    let cluster = run.cluster()?;
    Ok(members.into_iter().find(|other| *other != index && cluster.is_running(*other)))
}
