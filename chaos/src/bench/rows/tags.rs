//! Writes that the group agrees on, beside etcd's.

use std::time::Duration;

use anyhow::Result;

use super::super::{
    Bench,
    etcd_load::{self, EtcdLoad},
    outcome::{Outcome, Table},
    peers::{ETCD, Speech, TERCET_THREE, cluster_options, etcd, leader, tercet, whole},
    plot::Plot,
    refuse,
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
/// As long as that of a load.
const WARM_UP: Duration = Duration::from_secs(1);

pub(super) const ROW: Row = Row {
    number: 6,
    name: "tags",
    title: "Tag commits",
    words: "Clients set new tags, each with a PUT of a manifest that the repository has. Three members of etcd take a put of \
            a new key with a value of as many bytes over gRPC. Clients spread over all members, the first one with \
            the leader. An answer means for both: on the disk of two of three, and in order.",
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

/// Numbers what was measured of a server in a case by loads of one round each: in the order in which they were made.
fn number_rounds(measurements: &mut [Measurement], case: &str, target: &str) {
    let of_it = |one: &&mut Measurement| one.case == case && one.figures.target == target;
    for (one, round) in measurements.iter_mut().filter(of_it).zip(1..) {
        one.round = round;
    }
}

/// Cores that the clients kept busy.
fn client_cores(figures: &Figures) -> f64 {
    figures.client_cpu_seconds / figures.seconds
}

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let other = etcd(bench, outcome)?;
    let pids = other.pids();
    let mut all = Vec::new();
    for clients in CLIENTS {
        let case = case(clients);
        // The leader is first. Otherwise one client would go to a follower here and to the leader there, by chance.
        let (our_leader, their_leader) =
            (leader(bench, &cluster)?, bench.wait(other.settled_leader())?);
        let mut ours = whole(TERCET_THREE, &cluster);
        ours.urls.rotate_left(our_leader);
        let mut addresses: Vec<String> = (0..MEMBERS).map(|index| other.address(index)).collect();
        addresses.rotate_left(their_leader);
        let of_etcd = || -> Result<Figures> {
            let (time, warm_up) = (bench.options.time, WARM_UP);
            let load = EtcdLoad { clients, time, warm_up, value_bytes: VALUE_BYTES };
            // As before a load: nobody pays for what another one has left to write.
            rustix::fs::sync();
            let figures = etcd_load::measure(&load, ETCD, &addresses, &pids)?;
            refuse(&case, &figures)?;
            Ok(figures)
        };
        for round in 1..=bench.options.rounds {
            let etcd_first = round % 2 == 0;
            let before = if etcd_first { Some(of_etcd()?) } else { None };
            let mut load = bench.load(Workload::Tags, vec![ours.clone()]);
            load.source = Source::Made(vec![1 << 10; 3]);
            (load.rounds, load.clients) = (1, clients);
            // A new image each time: nothing is there already.
            load.seed = (clients * 1_000 + round) as u64;
            bench.measure(outcome, &case, load)?;
            let figures = match before {
                Some(figures) => figures,
                None => of_etcd()?,
            };
            outcome.measurements.push(Measurement { case: case.clone(), round, figures });
        }
        number_rounds(&mut outcome.measurements, &case, TERCET_THREE);
        bench
            .insist(leader(bench, &cluster)? == our_leader, "another replica leads than before")?;
        bench.insist(
            bench.wait(other.settled_leader())? == their_leader,
            "another member of etcd leads than before",
        )?;
        let (ours, theirs) = (outcome.series(&case, TERCET_THREE)?, outcome.series(&case, ETCD)?);
        outcome.judge(&format!("p50 {clients}"), &ours.over(&theirs, p50_ms))?;
        if clients == 64 {
            outcome.judge("rate 64", &ours.over(&theirs, per_second))?;
        }
        all.extend([ours, theirs]);
    }
    let mut table = Table::new(&[
        "clients",
        "server",
        "commits/s",
        "p50",
        "p99",
        "server cores",
        "client cores",
    ]);
    for series in &all {
        table.line([
            series.case.clone(),
            series.target.clone(),
            Unit::Count.show(series.median(per_second)),
            Unit::Milliseconds.show(series.median(p50_ms)),
            Unit::Milliseconds.show(series.median(p99_ms)),
            format!("{:.2}", series.median(super::server_cores)),
            format!("{:.2}", series.median(client_cores)),
        ]);
    }
    outcome.tables.push(table);
    outcome.plots.push(Plot::of("rate", "Commits per second", Unit::PerSecond, &all, per_second));
    let title = "Median time of a commit";
    outcome.plots.push(Plot::of("p50", title, Unit::Milliseconds, &all, p50_ms));
    other.stop()?;
    bench.wait(cluster.shut_down())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::series::tests::measurement;

    #[test]
    fn rounds_are_numbered_in_each_server_and_case_by_itself() {
        let mut all: Vec<Measurement> = [("a", 1), ("b", 1), ("b", 2), ("a", 1), ("a", 1)]
            .into_iter()
            .map(|(target, round)| measurement(target, round, 1.0))
            .collect();
        if let Some(last) = all.last_mut() {
            last.case = "other case".to_owned();
        }
        number_rounds(&mut all, "case", "a");
        let rounds: Vec<usize> = all.iter().map(|one| one.round).collect();
        assert_eq!(rounds, [1, 1, 2, 2, 1]);
    }
}
