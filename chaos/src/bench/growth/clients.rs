//! More clients.

use anyhow::Result;

use super::{Column, Growth, LATENCY, MEMORY, Picture, RATE, memory};
use crate::{
    bench::{
        Bench,
        outcome::Outcome,
        peers::{REPOSITORY, Speech, TAG, TERCET_THREE, cluster_options, push, tercet, whole},
        row::Row,
        series::{p50_ms, p99_ms, per_second},
        unit::Unit,
    },
    content::Image,
    load::{Source, Workload},
};

const SIZES: [usize; 6] = [1, 4, 16, 64, 256, 1_024];
const QUICK: [usize; 2] = [1, 4];

pub(super) const ROW: Row = Row {
    number: 5,
    name: "clients",
    title: "Clients",
    words: "Clients of three replicas, each with a connection that it keeps and no pause: they get a manifest by tag, or set new \
            tags.",
    targets: &[],
    body: measure,
};

const TAIL: Picture =
    Picture { name: "p99", title: "99 of 100 operations", unit: Unit::Milliseconds };

static COLUMNS: [Column; 7] = [
    Column { name: "manifests", picture: &RATE },
    Column { name: "new tags", picture: &RATE },
    Column { name: "time of a manifest", picture: &LATENCY },
    Column { name: "time of a new tag", picture: &LATENCY },
    Column { name: "99 % of manifests", picture: &TAIL },
    Column { name: "99 % of new tags", picture: &TAIL },
    Column { name: "memory", picture: &MEMORY },
];

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let target = || whole(TERCET_THREE, &cluster);
    push(bench, &[target()], &[TERCET_THREE], None, &Image::random(7, &[1 << 10]))?;
    let mut growth = Growth::new("clients", &COLUMNS);
    for &clients in bench.pick(SIZES.as_slice(), QUICK.as_slice()) {
        let mut all = Vec::new();
        for (workload, name) in [(Workload::Manifest, "manifests"), (Workload::Tags, "new tags")] {
            let case = format!("{name}, {clients} clients");
            let mut load = bench.load(workload, vec![target()]);
            load.source = match workload {
                Workload::Tags => Source::Made(vec![1 << 10]),
                _ => Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() },
            };
            (load.clients, load.seed) = (clients, clients as u64);
            bench.measure(outcome, &case, load)?;
            all.push(outcome.series(&case, TERCET_THREE)?);
        }
        let figures = [per_second, p50_ms, p99_ms].into_iter();
        let figures = figures.flat_map(|figure| all.iter().map(move |one| one.median(figure)));
        growth.step(clients, figures.chain([memory(&cluster)?]));
    }
    growth.show(outcome)?;
    bench.wait(cluster.shut_down())
}
