//! More repositories.

use std::time::Duration;

use anyhow::Result;

use super::{Column, DISK, Growth, LATENCY, MEMORY, REST, RESTART, disk, memory, ranges, restart};
use crate::{
    bench::{
        Bench,
        outcome::Outcome,
        peers::{Speech, TERCET_THREE, cluster_options, leader, one, tercet},
        row::Row,
        seeding::{fill, repository, tag},
        series::p50_ms,
    },
    client::RegistryClient,
    load::{Source, Workload},
};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
const QUICK: [usize; 2] = [4, 8];
const CLIENTS: usize = 8;
/// Of a list.
const PAGE: usize = 50;
const PATHS: usize = 2_000;

pub(super) const ROW: Row = Row {
    number: 2,
    name: "repositories",
    title: "Repositories",
    words: "Repositories of three replicas, each with a mounted blob, a manifest of its own and 100 tags. At each size 8 clients \
            ask the leader for pages of 50 repositories and for manifests by tag, spread over all.",
    targets: &[],
    body: measure,
};

static COLUMNS: [Column; 6] = [
    Column { name: "page of the catalog", picture: &LATENCY },
    Column { name: "manifest by tag", picture: &LATENCY },
    Column { name: "memory", picture: &MEMORY },
    Column { name: "metadata", picture: &DISK },
    Column { name: "Raft log", picture: &DISK },
    Column { name: "restart", picture: &RESTART },
];

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let mut cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let sizes = bench.pick(SIZES.as_slice(), QUICK.as_slice());
    let mut growth = Growth::new("repositories", &COLUMNS);
    for (range, &size) in ranges(sizes).into_iter().zip(sizes) {
        bench.wait(fill(&clients, range))?;
        bench.rest(bench.pick(REST, Duration::ZERO));
        let spread = |path: fn(usize) -> String, most: usize| -> Vec<String> {
            (0..PATHS).map(|turn| path((turn * 7_919) % most.max(1))).collect()
        };
        let page = |number| format!("/v2/_catalog?n={PAGE}&last={}", repository(number));
        let manifest =
            |number| format!("/v2/{}/manifests/{}", repository(number), tag(number % 100));
        let mut figures = Vec::new();
        for (name, paths) in [
            ("catalog", spread(page, size.saturating_sub(PAGE))),
            ("manifest", spread(manifest, size)),
        ] {
            let case = format!("{name} at {size}");
            let led_by = leader(bench, &cluster)?;
            let mut load = bench.load(Workload::Pull, vec![one(TERCET_THREE, &cluster, led_by)]);
            (load.source, load.clients) = (Source::Paths(paths), CLIENTS);
            bench.measure(outcome, &case, load)?;
            figures.push(outcome.series(&case, TERCET_THREE)?.median(p50_ms));
        }
        figures.push(memory(&cluster)?);
        figures.extend([disk(&cluster, 0, "state")?, disk(&cluster, 0, "log")?]);
        figures.push(restart(bench, &mut cluster)?);
        growth.step(size, figures);
    }
    growth.show(outcome)?;
    bench.wait(cluster.shut_down())
}
