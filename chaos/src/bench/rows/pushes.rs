//! Pushes: of one large blob, and of many small images.

use std::time::Duration;

use anyhow::Result;

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{
        DISTRIBUTION, Distribution, Speech, TERCET, TERCET_THREE, cluster_options, tercet, whole,
    },
    plot::Plot,
    row::Row,
    series::{Series, cpu_per_gigabyte, megabytes_per_second, p50_ms, per_second},
    target::Target,
    unit::Unit,
};
use crate::load::{Figures, LoadOptions, PushUnit, Rest, Source, Workload};

/// No measurement takes so long: their number of pushes ends them.
const TIME: Duration = Duration::from_secs(300);

pub(super) const LARGE: Row = Row {
    number: 4,
    name: "push",
    title: "Push of a large blob",
    words: "New blobs of 256 MiB are pushed one after the other: `POST`, then `PUT` of all of it, or `PATCH`es of 16 MiB. \
            What is acknowledged is hashed and on the disk (fsync); by three replicas it is hashed by all and on the disk \
            of two before. All three share this machine's disk and its two cores. Everything that was written before is \
            on the disk when a measurement begins.",
    targets: &[
        Target::ratio("one", 4.0, "bytes per second of one replica, of Distribution"),
        Target::ratio(
            "three",
            1.5,
            "bytes per second of three replicas, of Distribution's single copy",
        ),
    ],
    body: large,
};

pub(super) const SMALL: Row = Row {
    number: 5,
    name: "push-images",
    title: "Push of many small images",
    words: "1,000 images of three layers (4, 16 and 64 KiB) and a config, by 32 clients, to three replicas in turn. Every \
            blob is on the disk of two replicas and known to the group when it is acknowledged; so is every manifest.",
    targets: &[
        Target::least("blobs", 300.0, Unit::PerSecond, "blobs per second"),
        Target::most("p99", 250.0, Unit::Milliseconds, "99 of 100 blobs took no longer"),
    ],
    body: small,
};

fn large(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let one = tercet(bench, outcome, TERCET, cluster_options(1, Speech::Plain))?;
    let three = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let distribution = Distribution::start(bench, outcome, None)?;
    let targets = vec![whole(TERCET, &one), whole(TERCET_THREE, &three), distribution.target()];
    let mut load = pushes(bench, targets);
    load.source = Source::Made(vec![bench.pick(256 << 20, 8 << 20)]);
    load.operations_max = Some(4);
    let (whole_blob, chunks) = ("in one piece", "in chunks of 16 MiB");
    bench.measure(outcome, whole_blob, load.clone())?;
    load.chunk = Some(16 << 20);
    bench.measure(outcome, chunks, load)?;
    let series = |case: &str, name: &str| outcome.series(case, name);
    let names = [TERCET, TERCET_THREE, DISTRIBUTION];
    let mut all: Vec<Series> = Vec::new();
    for case in [whole_blob, chunks] {
        for name in names {
            all.push(series(case, name)?);
        }
    }
    let slow = series(whole_blob, DISTRIBUTION)?;
    let one_ratio = series(whole_blob, TERCET)?.over(&slow, megabytes_per_second);
    let three_ratio = series(whole_blob, TERCET_THREE)?.over(&slow, megabytes_per_second);
    outcome.judge("one", one_ratio)?;
    outcome.judge("three", three_ratio)?;
    let mut table = Table::new(&["push", "server", "MB/s", "server s/GB"]);
    for series in &all {
        table.line([
            series.case.clone(),
            series.target.clone(),
            Unit::Count.show(series.median(megabytes_per_second)),
            format!("{:.2}", series.median(cpu_per_gigabyte)),
        ]);
    }
    outcome.tables.push(table);
    let unit = Unit::MegabytesPerSecond;
    let title = "Bytes per second of a push";
    outcome.plots.push(Plot::of("bytes", title, unit, &all, megabytes_per_second));
    bench.wait(one.shut_down())?;
    bench.wait(three.shut_down())
}

fn small(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let three = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let distribution = Distribution::start(bench, outcome, None)?;
    let mut load = pushes(bench, vec![whole(TERCET_THREE, &three), distribution.target()]);
    load.source = Source::Made(vec![4 << 10, 16 << 10, 64 << 10]);
    (load.unit, load.clients) = (PushUnit::Image, 32);
    load.operations_max = Some(bench.pick(1_000, 32));
    let case = "32 clients";
    bench.measure(outcome, case, load)?;
    let all = [outcome.series(case, TERCET_THREE)?, outcome.series(case, DISTRIBUTION)?];
    let [ours, _] = &all;
    outcome.judge("blobs", ours.median(blobs_per_second))?;
    outcome.judge("p99", ours.median(blob_p99_ms))?;
    let mut table =
        Table::new(&["server", "images/s", "blobs/s", "blob p99", "image p50", "server cores"]);
    for series in &all {
        table.line([
            series.target.clone(),
            format!("{:.1}", series.median(per_second)),
            Unit::Count.show(series.median(blobs_per_second)),
            Unit::Milliseconds.show(series.median(blob_p99_ms)),
            Unit::Milliseconds.show(series.median(p50_ms)),
            format!("{:.2}", series.median(super::server_cores)),
        ]);
    }
    outcome.tables.push(table);
    let title = "Blobs pushed per second";
    outcome.plots.push(Plot::of("blobs", title, Unit::PerSecond, &all, blobs_per_second));
    bench.wait(three.shut_down())
}

/// A load of pushes that nobody's dirty pages slow down but its own.
fn pushes(bench: &Bench, targets: Vec<crate::load::LoadTarget>) -> LoadOptions {
    LoadOptions { time: TIME, rest: Rest::Synced, ..bench.load(Workload::Push, targets) }
}

/// Configs count as the blobs that they are.
fn blobs_per_second(figures: &Figures) -> f64 {
    figures.blobs.count as f64 / figures.seconds
}

fn blob_p99_ms(figures: &Figures) -> f64 {
    figures.blobs.p99_us as f64 / 1e3
}
