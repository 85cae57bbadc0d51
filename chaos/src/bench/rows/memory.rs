//! Memory of a replica.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{REPOSITORY, Speech, TAG, TERCET_THREE, cluster_options, push, tercet, whole},
    refuse,
    row::Row,
    seeding::{TAGS_EACH, fill},
    series::quantile,
    target::Target,
    unit::Unit,
};
use crate::{
    client::RegistryClient,
    cluster::Cluster,
    content::Image,
    load::{LoadOptions, LoadReport, Source, Workload, load},
    replica::Replica,
};

/// After the last write, before what is idle is measured.
const REST: Duration = Duration::from_secs(15);

pub(super) const ROW: Row = Row {
    number: 7,
    name: "memory",
    title: "Memory of a replica",
    words: "Resident memory of the replica of three that has most: 15 s after 100,000 tags in 1,000 repositories were made \
            through the API, without a restart (`VmRSS`); and the most that there was (`VmHWM`) while 64 clients pull layers \
            of 32 MiB and 16 clients push new ones of the same size. The clients are spread over the three: each has a third \
            of them, and the copies of what the others take.",
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
    outcome.judge("idle", &[most(&idle)])?;
    outcome.judge("loaded", &[most(&peak)])?;
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
pub(in crate::bench) fn resident(cluster: &Cluster) -> Result<Vec<f64>> {
    (0..cluster.len()).map(|index| Ok(cluster.rss_bytes(index)? as f64 / 1e6)).collect()
}

/// The most of every replica while clients pull and push.
fn loaded(bench: &Bench, cluster: &Cluster) -> Result<Vec<f64>> {
    let size = bench.pick(32 << 20, 1 << 20);
    let targets = vec![whole(TERCET_THREE, cluster)];
    // There before: the pulls have nothing to prepare, and begin when the pushes do.
    push(bench, &targets, &[TERCET_THREE], None, &Image::random(7, &[size; 4]))?;
    let mut pulls = bench.load(Workload::Pull, targets);
    (pulls.rounds, pulls.time) = (1, pulls.time * 2);
    let mut pushes = pulls.clone();
    pulls.source = Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() };
    (pushes.workload, pushes.source) = (Workload::Push, Source::Made(vec![size]));
    (pulls.clients, pushes.clients) = (64, 16);
    replicas(cluster).try_for_each(Replica::forget_peak)?;
    let (pulled, pushed) = thread::scope(|scope| {
        let pushed = scope.spawn(|| timed(pushes));
        let pulled = timed(pulls);
        (pulled, pushed.join())
    });
    let pushed = pushed.map_err(|_| anyhow!("the pushes have failed"))??;
    let pulled = pulled?;
    let both = pulled.ended.min(pushed.ended) - pulled.began.max(pushed.began);
    let too_short = format!("pulls and pushes were under way together for {both:?} only");
    bench.insist(both >= bench.options.time, &too_short)?;
    for figures in pushed.report.targets.iter().chain(&pulled.report.targets) {
        refuse("64 pulls, 16 pushes", figures)?;
    }
    replicas(cluster).map(|replica| Ok(replica.memory()?.peak as f64 / 1e6)).collect()
}

/// A load, and when it was under way.
struct Timed {
    report: LoadReport,
    began: Instant,
    ended: Instant,
}

fn timed(options: LoadOptions) -> Result<Timed> {
    let began = Instant::now();
    let report = load(options)?;
    Ok(Timed { report, began, ended: Instant::now() })
}

fn replicas(cluster: &Cluster) -> impl Iterator<Item = &Replica> {
    (0..cluster.len()).map(|index| cluster.replica(index))
}
