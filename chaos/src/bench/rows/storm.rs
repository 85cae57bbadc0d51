//! Everybody pulls one image at once.

use anyhow::Result;

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{
        DISTRIBUTION, Distribution, NGINX, Nginx, REPOSITORY, Speech, TAG, TERCET_THREE,
        cluster_options, push, tercet, whole,
    },
    plot::Plot,
    row::Row,
    series::{megabytes_per_second, p50_ms, quantile},
    target::Target,
    unit::Unit,
};
use crate::{
    content::Image,
    load::{Figures, Source, Workload},
};

pub(super) const ROW: Row = Row {
    number: 9,
    name: "storm",
    title: "A storm of pulls",
    words: "200 clients pull one image of five layers of 20 MB at the same moment, each on up to three new connections: \
            manifest, config, layers. Three replicas have a third of the clients each; nginx has all of them. One storm \
            goes before that does not count.",
    targets: &[
        Target::ratio("nginx", 0.9, "bytes per second of all clients together, of nginx"),
        Target::ratio_at_most(
            "slowest",
            3.0,
            "time of the slowest client of all rounds, of its storm's median",
        ),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let image = Image::random(7, &[bench.pick(20_000_000, 1_000_000); 5]);
    let cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let nginx = Nginx::start(bench, outcome, &image, None)?;
    let distribution = Distribution::start(bench, outcome, None)?;
    let targets = vec![whole(TERCET_THREE, &cluster), nginx.target(), distribution.target()];
    push(bench, &targets, &[TERCET_THREE, DISTRIBUTION], None, &image)?;
    let mut load = bench.load(Workload::Storm, targets);
    load.source = Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() };
    load.clients = bench.pick(200, 20);
    load.operations_max = Some(1);
    let case = format!("{} clients", load.clients);
    bench.measure(outcome, &case, load)?;
    let names = [TERCET_THREE, NGINX, DISTRIBUTION];
    let all: Vec<_> =
        names.iter().map(|name| outcome.series(&case, name)).collect::<Result<_>>()?;
    let [ours, ceiling, _] = all.as_slice() else { return Ok(()) };
    outcome.judge("nginx", &ours.over(ceiling, megabytes_per_second))?;
    // Of all rounds the worst, not the median.
    let slowest = quantile(&ours.each(slowest_to_median), 1.0);
    outcome.judge("slowest", &[slowest])?;
    let mut table = Table::new(&["server", "MB/s", "median client", "slowest / median"]);
    for series in &all {
        table.line([
            series.target.clone(),
            Unit::Count.show(series.median(megabytes_per_second)),
            Unit::Milliseconds.show(series.median(p50_ms)),
            Unit::Times.show(series.median(slowest_to_median)),
        ]);
    }
    outcome.tables.push(table);
    let title = "Bytes per second of all clients together";
    let unit = Unit::MegabytesPerSecond;
    outcome.plots.push(Plot::of("bytes", title, unit, &all, megabytes_per_second));
    bench.wait(cluster.shut_down())
}

/// The slowest client of all storms as a multiple of its storm's median.
fn slowest_to_median(figures: &Figures) -> f64 {
    let all = figures.storms.iter().map(|storm| storm.slowest_to_median);
    all.fold(f64::NAN, f64::max)
}
