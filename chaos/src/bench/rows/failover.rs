//! How long nobody can write after the leader has died.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, ensure};

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{
        ETCD, REPOSITORY, Speech, TAG, TERCET_THREE, cluster_options, etcd, push, tercet, whole,
    },
    plot::{Bar, Group, Plot},
    row::Row,
    series::{median, quantile},
    target::Target,
    unit::Unit,
};
use crate::{
    client::RegistryClient,
    cluster::Cluster,
    content::Image,
    etcd::under_writes,
    wait::wait_until,
    workload::{ATTEMPT_PATIENCE, first_success},
};

/// Until a replica that was started again has everything.
const HEAL: Duration = Duration::from_secs(90);

pub(super) const ROW: Row = Row {
    number: 10,
    name: "failover",
    title: "Death of the leader",
    words: "`kill -9` of the leader of three, again and again, while three clients write through all replicas, before the \
            kill and on until writes resume; what is refused is followed by the next try. From the kill on a write is \
            also tried on both survivors every 50 ms, without waiting for the ones before; the time is that until the \
            first of these is acknowledged. All of Tercet's kills come first. Then the same clients do the same to etcd, \
            with its default timing. During Tercet's kills only, images are pulled from the survivors as well, each tag \
            with all its blobs.",
    targets: &[
        Target::most("p50", 1_500.0, Unit::Milliseconds, "until a write is acknowledged, median"),
        Target::most("p99", 2_500.0, Unit::Milliseconds, "the same, slowest of 20"),
        Target::most("pulls", 0.0, Unit::Count, "pulls from survivors that failed"),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let kills = bench.pick(20, 2);
    let ours = of_tercet(bench, outcome, kills)?;
    // What was measured of Tercet is shown in any case.
    let theirs = of_etcd(bench, outcome, kills);
    let all: Vec<(&str, &[f64])> =
        [(TERCET_THREE, Some(ours.as_slice())), (ETCD, theirs.as_deref().ok())]
            .into_iter()
            .filter_map(|(name, times)| Some((name, times?)))
            .collect();
    let slowest = format!("slowest of {kills}");
    let mut table = Table::new(&["server", "median", &slowest, "fastest"]);
    for (name, times) in &all {
        let figures = [median(times), quantile(times, 1.0), quantile(times, 0.0)];
        let figures = figures.map(|time| Unit::Milliseconds.show(time));
        table.line([(*name).to_owned()].into_iter().chain(figures));
    }
    outcome.tables.push(table);
    let bars = all.iter().map(|(name, times)| Bar {
        name: (*name).to_owned(),
        value: median(times),
        points: times.to_vec(),
    });
    outcome.plots.push(Plot {
        name: "resumed",
        title: "Until a write was acknowledged: median, and each kill a point".to_owned(),
        unit: Unit::Milliseconds,
        groups: vec![Group { name: format!("{kills} kills"), bars: bars.collect() }],
    });
    theirs.map(drop)
}

/// Kills Tercet's leaders, and judges it. Returns the times in milliseconds.
fn of_tercet(bench: &Bench, outcome: &mut Outcome, kills: usize) -> Result<Vec<f64>> {
    let mut cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let image = Image::random(7, &[64 << 10; 3]);
    push(bench, &[whole(TERCET_THREE, &cluster)], &[TERCET_THREE], None, &image)?;
    let (mut times, mut pulls) = (Vec::new(), Pulls::default());
    for kill in 1..=kills {
        times.push(milliseconds(bench.wait(one_kill(&mut cluster, &image, kill, &mut pulls))?));
    }
    outcome.sample("tercet_ms", &times);
    outcome.judge("p50", &[median(&times)])?;
    // 99 of 100 of so few are all of them.
    outcome.judge("p99", &[quantile(&times, 0.99)])?;
    outcome.notes.push(format!(
        "{} images were pulled from survivors of Tercet between the kills and the first writes, and {} pulls failed.",
        pulls.done, pulls.failed
    ));
    ensure!(pulls.done > 0, "no image was pulled, and {} pulls failed", pulls.failed);
    outcome.judge("pulls", &[pulls.failed as f64])?;
    bench.wait(cluster.shut_down())?;
    Ok(times)
}

/// Does the same to etcd.
fn of_etcd(bench: &Bench, outcome: &mut Outcome, kills: usize) -> Result<Vec<f64>> {
    let mut etcd = etcd(bench, outcome)?;
    let mut times = Vec::new();
    for _ in 0..kills {
        times.push(milliseconds(bench.wait(etcd.fail_over_under_writes())?));
        bench.wait(etcd.restart())?;
    }
    outcome.sample("etcd_ms", &times);
    etcd.stop()?;
    Ok(times)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Images that were pulled while nobody led.
#[derive(Default)]
struct Pulls {
    done: u64,
    failed: u64,
}

async fn one_kill(
    cluster: &mut Cluster,
    image: &Image,
    kill: usize,
    pulls: &mut Pulls,
) -> Result<Duration> {
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let hasty: Vec<RegistryClient> =
        clients.iter().map(|client| client.clone().patient_for(ATTEMPT_PATIENCE)).collect();
    // No tag is written twice: each write is one that has to be agreed on.
    let write = async |client: Option<&RegistryClient>, tag: String| match client {
        Some(client) => client.push_manifest(REPOSITORY, &tag, image).await.is_ok(),
        None => false,
    };
    let write_on = async |writer: usize, number: usize| {
        let client = hasty.get(number % hasty.len());
        write(client, format!("w{writer}-{kill}-{number}")).await
    };
    let number = Cell::new(0_u64);
    let work = async {
        let leader =
            wait_until("the replicas agree on a leader", HEAL, || cluster.leader()).await?;
        let survivors: Vec<usize> = (0..clients.len()).filter(|index| *index != leader).collect();
        let resumed = Cell::new(false);
        cluster.kill9(leader)?;
        let writes = async {
            let time = first_success(survivors.len(), async |index| {
                number.set(number.get() + 1);
                let client = survivors.get(index).and_then(|index| hasty.get(*index));
                write(client, format!("after-{kill}-{}", number.get())).await
            })
            .await;
            resumed.set(true);
            time
        };
        let pulling = async {
            let mut turn = survivors.iter().filter_map(|index| clients.get(*index)).cycle();
            while !resumed.get() {
                let client = turn.next().context("there are survivors")?;
                match client.pull_image(REPOSITORY, TAG, image).await {
                    Ok(_) => pulls.done += 1,
                    Err(_) => pulls.failed += 1,
                }
            }
            anyhow::Ok(())
        };
        let (time, pulled) = tokio::join!(writes, pulling);
        pulled?;
        Ok((leader, time?))
    };
    let (leader, time) = under_writes(write_on, work).await?;
    cluster.restart(leader)?;
    cluster.wait_ready(HEAL).await?;
    cluster.wait_caught_up(leader, HEAL).await?;
    Ok(time)
}
