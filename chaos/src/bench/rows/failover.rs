//! How long nobody can write after the leader has died.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;

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
    wait::wait_until,
    workload::{ATTEMPT_PATIENCE, first_success},
};

/// Until a replica that was started again has everything.
const HEAL: Duration = Duration::from_secs(90);
/// Writes before each kill, by each of the writers.
const WRITES: usize = 30;
const WRITERS: usize = 3;
/// As between two writes to etcd.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) const ROW: Row = Row {
    number: 10,
    name: "failover",
    title: "Death of the leader",
    words: "`kill -9` of the leader of three, under writes, again and again. From then on a write is tried on both survivors \
            every 50 ms, without waiting for the ones before; the time is that until the first is acknowledged. The same \
            clients do the same to etcd, with its default timing. Meanwhile images are pulled from the survivors of \
            Tercet, each tag with all its blobs.",
    targets: &[
        Target::most("p50", 1_500.0, Unit::Milliseconds, "until a write is acknowledged, median"),
        Target::most("p99", 2_500.0, Unit::Milliseconds, "the same, 99 of 100"),
        Target::most("pulls", 0.0, Unit::Count, "pulls from survivors that failed"),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let kills = bench.pick(20, 2);
    let mut cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let image = Image::random(7, &[64 << 10; 3]);
    push(bench, &[whole(TERCET_THREE, &cluster)], &[TERCET_THREE], None, &image)?;
    let (mut ours, mut pulls) = (Vec::new(), Pulls::default());
    for _ in 0..kills {
        ours.push(milliseconds(bench.wait(one_kill(&mut cluster, &image, &mut pulls))?));
    }
    let mut other = etcd(bench, outcome)?;
    let mut theirs = Vec::new();
    for _ in 0..kills {
        bench.wait(other.write_for_a_while())?;
        theirs.push(milliseconds(bench.wait(other.fail_over())?));
        bench.wait(other.restart())?;
    }
    other.stop()?;
    outcome.judge("p50", median(&ours))?;
    outcome.judge("p99", quantile(&ours, 0.99))?;
    outcome.judge("pulls", pulls.failed as f64)?;
    let mut table = Table::new(&["server", "kills", "median", "99 of 100", "fastest"]);
    for (name, times) in [(TERCET_THREE, &ours), (ETCD, &theirs)] {
        let at = |share: f64| Unit::Milliseconds.show(quantile(times, share));
        let half = Unit::Milliseconds.show(median(times));
        table.line([name.to_owned(), kills.to_string(), half, at(0.99), at(0.0)]);
    }
    outcome.tables.push(table);
    outcome.notes.push(format!(
        "{} images were pulled from survivors between the kills and the first writes, {} without success.",
        pulls.done, pulls.failed
    ));
    let bar = |name: &str, times: &[f64]| Bar {
        name: name.to_owned(),
        value: median(times),
        points: times.to_vec(),
    };
    outcome.plots.push(Plot {
        name: "resumed",
        title: "Until a write was acknowledged, each kill a point".to_owned(),
        unit: Unit::Milliseconds,
        groups: vec![Group {
            name: format!("{kills} kills"),
            bars: vec![bar(TERCET_THREE, &ours), bar(ETCD, &theirs)],
        }],
    });
    outcome.sample("tercet_ms", &ours);
    outcome.sample("etcd_ms", &theirs);
    bench.wait(cluster.shut_down())
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

async fn one_kill(cluster: &mut Cluster, image: &Image, pulls: &mut Pulls) -> Result<Duration> {
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    write_for_a_while(&clients, image).await?;
    let leader = wait_until("the replicas agree on a leader", HEAL, || cluster.leader()).await?;
    let survivors: Vec<RegistryClient> = clients
        .into_iter()
        .enumerate()
        .filter(|(index, _)| *index != leader)
        .map(|(_, client)| client)
        .collect();
    let resumed = Rc::new(Cell::new(false));
    cluster.kill9(leader)?;
    let number = Cell::new(0_u64);
    let writes = async {
        let time = first_success(survivors.len(), async |index| match survivors.get(index) {
            Some(client) => {
                number.set(number.get() + 1);
                let tag = format!("after-{}", number.get());
                let patient = client.clone().patient_for(ATTEMPT_PATIENCE);
                patient.push_manifest(REPOSITORY, &tag, image).await.is_ok()
            }
            None => false,
        })
        .await;
        resumed.set(true);
        time
    };
    let pulling = async {
        let mut turn = survivors.iter().cycle();
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
    cluster.restart(leader)?;
    cluster.wait_ready(HEAL).await?;
    cluster.wait_caught_up(leader, HEAL).await?;
    time
}

/// Several clients set tags, through all replicas.
async fn write_for_a_while(clients: &[RegistryClient], image: &Image) -> Result<()> {
    let start = Instant::now();
    let writers = (0..WRITERS).map(|writer| async move {
        for number in 0..WRITES {
            let client = clients.get((writer + number) % clients.len()).context("a replica")?;
            client.push_manifest(REPOSITORY, &format!("w{writer}-{number}"), image).await?;
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    });
    try_join_all(writers).await.with_context(|| format!("writes of {:?}", start.elapsed()))?;
    Ok(())
}
