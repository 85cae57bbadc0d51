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
use crate::load::{Figures, LoadOptions, PushUnit, Source, Workload};

/// No measurement takes so long: their number of pushes ends them.
const TIME: Duration = Duration::from_secs(300);
/// The two ways of a large blob.
const WHOLE_BLOB: &str = "in one piece";
const CHUNKS: &str = "in chunks of 16 MiB";

pub(super) const LARGE: Row = Row {
    number: 4,
    name: "push",
    title: "Push of a large blob",
    words: "New blobs of 256 MiB are pushed one after the other: `POST`, then `PUT` of all of it, or `PATCH`es of 16 MiB. \
            What Tercet acknowledges is hashed and on the disk (fsync); of three replicas, on the disks of two, each of \
            which has hashed it, and on its way to the third. All servers share this machine's disk and its cores. What \
            was written before the warm-up is on the disk when a measurement begins.",
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
    words: "1,000 images of three layers (4, 16 and 64 KiB) and a config, by 32 clients, spread over three replicas. A blob \
            is a layer or a config. Every blob is on the disk of two replicas and known to the group when it is acknowledged; so is every manifest.",
    targets: &[
        Target::least("blobs", 300.0, Unit::PerSecond, "blobs per second"),
        Target::most("p99", 250.0, Unit::Milliseconds, "99 of 100 blobs took no longer"),
    ],
    body: small,
};

fn large(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    measure_large(bench, outcome, WHOLE_BLOB, None)?;
    measure_large(bench, outcome, CHUNKS, Some(16 << 20))?;
    let series = |case: &str, name: &str| outcome.series(case, name);
    let names = [TERCET, TERCET_THREE, DISTRIBUTION];
    let mut all: Vec<Series> = Vec::new();
    for case in [WHOLE_BLOB, CHUNKS] {
        for name in names {
            all.push(series(case, name)?);
        }
    }
    let slow = series(WHOLE_BLOB, DISTRIBUTION)?;
    let one_ratio = series(WHOLE_BLOB, TERCET)?.over(&slow, megabytes_per_second);
    let three_ratio = series(WHOLE_BLOB, TERCET_THREE)?.over(&slow, megabytes_per_second);
    outcome.judge("one", &one_ratio)?;
    outcome.judge("three", &three_ratio)?;
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
    Ok(())
}

/// With servers of its own: what was pushed before goes with them, and the disk is not filled.
fn measure_large(
    bench: &Bench,
    outcome: &mut Outcome,
    case: &str,
    chunk: Option<usize>,
) -> Result<()> {
    let one = tercet(bench, outcome, TERCET, cluster_options(1, Speech::Plain))?;
    let three = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let distribution = Distribution::start(bench, outcome, None)?;
    let targets = vec![whole(TERCET, &one), whole(TERCET_THREE, &three), distribution.target()];
    let mut load = pushes(bench, targets);
    load.source = Source::Made(vec![bench.pick(256 << 20, 8 << 20)]);
    (load.operations_max, load.chunk) = (Some(4), chunk);
    bench.measure(outcome, case, load)?;
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
    outcome.judge("blobs", &ours.each(blobs_per_second))?;
    outcome.judge("p99", &ours.each(blob_p99_ms))?;
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

/// A load of pushes that ends by their number.
fn pushes(bench: &Bench, targets: Vec<crate::load::LoadTarget>) -> LoadOptions {
    LoadOptions { time: TIME, ..bench.load(Workload::Push, targets) }
}

/// Configs count as the blobs that they are.
fn blobs_per_second(figures: &Figures) -> f64 {
    figures.blobs.count as f64 / figures.seconds
}

fn blob_p99_ms(figures: &Figures) -> f64 {
    figures.blobs.p99_us as f64 / 1e3
}
