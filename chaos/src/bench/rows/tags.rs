//! Writes that the group agrees on, beside etcd's.

use std::time::Duration;

use anyhow::Result;

use super::super::{
    Bench,
    etcd_load::{self, EtcdLoad, EtcdWork},
    outcome::{Outcome, Table},
    peers::{ETCD, Speech, TERCET_THREE, cluster_options, etcd, tercet, whole},
    plot::Plot,
    row::Row,
    series::{Measurement, p50_ms, p99_ms, per_second},
    target::Target,
    unit::Unit,
};
use crate::{
    etcd::MEMBERS,
    load::{Figures, Source, Workload},
};

const CLIENTS: [usize; 3] = [1, 16, 64];
/// About the bytes of the manifest that every new tag brings along.
const VALUE_BYTES: usize = 700;
const WARM_UP: Duration = Duration::from_millis(500);

pub(super) const ROW: Row = Row {
    number: 6,
    name: "tags",
    title: "Tag commits",
    words: "Clients set new tags, each with a PUT of a manifest that the repository has. Three members of etcd take a put of \
            a new key with a value of as many bytes over gRPC. Clients spread over all members. An answer means for both: \
            on the disk of two of three, and in order.",
    targets: &[
        Target::ratio_at_most("p50 1", 1.0, "median time of a commit with 1 client, of etcd's"),
        Target::ratio_at_most("p50 16", 1.0, "median time of a commit with 16 clients, of etcd's"),
        Target::ratio_at_most("p50 64", 1.0, "median time of a commit with 64 clients, of etcd's"),
        Target::ratio("rate 64", 3.0, "commits per second with 64 clients, of etcd's"),
    ],
    body: measure,
};

fn case(clients: usize) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let other = etcd(bench, outcome)?;
    let addresses: Vec<String> = (0..MEMBERS).map(|index| other.address(index)).collect();
    let pids = other.pids();
    let mut all = Vec::new();
    for clients in CLIENTS {
        let case = case(clients);
        let of_etcd = || -> Result<Figures> {
            let (time, warm_up) = (bench.options.time, WARM_UP);
            let work = EtcdWork::Put;
            let load = EtcdLoad { work, clients, time, warm_up, value_bytes: VALUE_BYTES };
            etcd_load::measure(&load, ETCD, &addresses, &pids)
        };
        for round in 1..=bench.options.rounds {
            let etcd_first = round % 2 == 0;
            let before = if etcd_first { Some(of_etcd()?) } else { None };
            let mut load = bench.load(Workload::Tags, vec![whole(TERCET_THREE, &cluster)]);
            load.source = Source::Made(vec![1 << 10; 3]);
            (load.rounds, load.clients) = (1, clients);
            // A new image each time: nothing is there already.
            load.seed = (clients * 1_000 + round) as u64;
            bench.measure(outcome, &case, load)?;
            if let Some(last) = outcome.measurements.last_mut() {
                last.round = round;
            }
            let figures = match before {
                Some(figures) => figures,
                None => of_etcd()?,
            };
            outcome.measurements.push(Measurement { case: case.clone(), round, figures });
        }
        let (ours, theirs) = (outcome.series(&case, TERCET_THREE)?, outcome.series(&case, ETCD)?);
        outcome.judge(&format!("p50 {clients}"), ours.over(&theirs, p50_ms))?;
        if clients == 64 {
            outcome.judge("rate 64", ours.over(&theirs, per_second))?;
        }
        all.extend([ours, theirs]);
    }
    let mut table = Table::new(&["clients", "server", "commits/s", "p50", "p99", "server cores"]);
    for series in &all {
        table.line([
            series.case.clone(),
            series.target.clone(),
            Unit::Count.show(series.median(per_second)),
            Unit::Milliseconds.show(series.median(p50_ms)),
            Unit::Milliseconds.show(series.median(p99_ms)),
            format!("{:.2}", series.median(super::server_cores)),
        ]);
    }
    outcome.tables.push(table);
    outcome.plots.push(Plot::of("rate", "Commits per second", Unit::PerSecond, &all, per_second));
    let title = "Median time of a commit";
    outcome.plots.push(Plot::of("p50", title, Unit::Milliseconds, &all, p50_ms));
    other.stop()?;
    bench.wait(cluster.shut_down())
}
