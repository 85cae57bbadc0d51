//! Memory of a replica.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{Speech, TERCET_THREE, cluster_options, tercet, whole},
    row::Row,
    seeding::{TAGS_EACH, fill},
    series::quantile,
    target::Target,
    unit::Unit,
};
use crate::{
    client::RegistryClient,
    cluster::Cluster,
    load::{Source, Workload, load},
};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(50);
/// After the last write, before what is idle is measured.
const REST: Duration = Duration::from_secs(15);

pub(super) const ROW: Row = Row {
    number: 7,
    name: "memory",
    title: "Memory of a replica",
    words: "Resident memory (`VmRSS`) of the replica of three that has most: 15 s after 100,000 tags in 1,000 repositories were \
            made through the API, without a restart; and the peak while 64 clients pull layers of 32 MiB and 16 clients \
            push new ones of the same size to all three.",
    targets: &[
        Target::most("idle", 80.0, Unit::Megabytes, "idle with 100,000 tags"),
        Target::most("loaded", 160.0, Unit::Megabytes, "peak under 64 pulls and 16 pushes"),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let empty = resident(&cluster)?;
    let repositories = bench.pick(1_000, 4);
    bench.wait(fill(&clients, 0..repositories))?;
    bench.rest(bench.pick(REST, Duration::from_millis(100)));
    let idle = resident(&cluster)?;
    let peak = loaded(bench, &cluster)?;
    outcome.judge("idle", most(&idle))?;
    outcome.judge("loaded", most(&peak))?;
    let mut table = Table::new(&["when", "least", "most"]);
    let full = format!("idle with {} tags", repositories * TAGS_EACH);
    for (when, all) in
        [("empty".to_owned(), &empty), (full, &idle), ("64 pulls, 16 pushes".to_owned(), &peak)]
    {
        let show = |share| Unit::Megabytes.show(quantile(all, share));
        table.line([when, show(0.0), show(1.0)]);
    }
    outcome.tables.push(table);
    outcome.sample("empty_mb", &empty);
    outcome.sample("idle_mb", &idle);
    outcome.sample("loaded_mb", &peak);
    bench.wait(cluster.shut_down())
}

fn most(all: &[f64]) -> f64 {
    quantile(all, 1.0)
}

/// Of every replica, in MB.
fn resident(cluster: &Cluster) -> Result<Vec<f64>> {
    (0..cluster.len()).map(|index| Ok(cluster.rss_bytes(index)? as f64 / 1e6)).collect()
}

/// The most of every replica while clients pull and push.
fn loaded(bench: &Bench, cluster: &Cluster) -> Result<Vec<f64>> {
    let size = bench.pick(32 << 20, 1 << 20);
    let mut pulls = bench.load(Workload::Pull, vec![whole(TERCET_THREE, cluster)]);
    pulls.rounds = 1;
    pulls.time *= 2;
    pulls.source = Source::Made(vec![size; 4]);
    let mut pushes = pulls.clone();
    pushes.workload = Workload::Push;
    (pulls.clients, pushes.clients) = (64, 16);
    let mut peak = resident(cluster)?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let both = scope.spawn(|| {
            let pushing = thread::scope(|scope| {
                let pushing = scope.spawn(|| load(pushes));
                let pulled = load(pulls);
                (pushing.join(), pulled)
            });
            ended.store(true, Ordering::Release);
            pushing
        });
        while !ended.load(Ordering::Acquire) {
            for (peak, now) in peak.iter_mut().zip(resident(cluster)?) {
                *peak = peak.max(now);
            }
            bench.rest(EVERY);
        }
        let (pushed, pulled) = both.join().map_err(|_| anyhow!("the load has failed"))?;
        let pushed = pushed.map_err(|_| anyhow!("the pushes have failed"))??;
        for figures in pushed.targets.iter().chain(&pulled?.targets) {
            anyhow::ensure!(figures.failures() == 0, "operations failed: {:?}", figures.errors);
        }
        Ok(peak)
    })
}
