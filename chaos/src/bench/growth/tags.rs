//! More tags in one repository.

use anyhow::Result;

use super::{Column, DISK, Growth, LATENCY, MEMORY, REST, RESTART, disk, memory, ranges, restart};
use crate::{
    bench::{
        Bench,
        outcome::Outcome,
        peers::{Speech, TERCET_THREE, cluster_options, leader, one, tercet},
        row::Row,
        seeding::{fill_one, numbered_tag},
        series::p50_ms,
    },
    client::RegistryClient,
    load::{Source, Workload},
};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const QUICK: [usize; 2] = [100, 200];
const CLIENTS: usize = 8;
/// Of a list.
const PAGE: usize = 50;
const PATHS: usize = 2_000;
const REPOSITORY: &str = "bench/tags";

pub(super) const ROW: Row = Row {
    number: 1,
    name: "tags",
    title: "Tags",
    words: "Tags of one manifest in one repository of three replicas. At each size 8 clients ask the leader for pages of 50 tags \
            and for manifests by tag, spread over all, and set new tags. Memory is that of the replica that has most of it; \
            the disk is that of one replica, with its Raft log.",
    targets: &[],
    body: measure,
};

static COLUMNS: [Column; 7] = [
    Column { name: "page of tags", picture: &LATENCY },
    Column { name: "manifest by tag", picture: &LATENCY },
    Column { name: "new tag", picture: &LATENCY },
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
    let mut growth = Growth::new("tags", &COLUMNS);
    for (range, &size) in ranges(sizes).into_iter().zip(sizes) {
        bench.wait(fill_one(&clients, REPOSITORY, range))?;
        bench.rest(bench.pick(REST, std::time::Duration::ZERO));
        // A prime step: neighbours in time are none in the store.
        let spread = |path: fn(usize) -> String, most: usize| -> Vec<String> {
            (0..PATHS).map(|turn| path((turn * 7_919) % most.max(1))).collect()
        };
        let page =
            |number| format!("/v2/{REPOSITORY}/tags/list?n={PAGE}&last={}", numbered_tag(number));
        let manifest = |number| format!("/v2/{REPOSITORY}/manifests/{}", numbered_tag(number));
        let mut figures = Vec::new();
        for (name, paths) in [
            ("page", spread(page, size.saturating_sub(PAGE))),
            ("manifest", spread(manifest, size)),
        ] {
            let case = format!("{name} at {size}");
            let led_by = leader(bench, &cluster)?;
            let mut load = bench.load(Workload::Pull, vec![one(TERCET_THREE, &cluster, led_by)]);
            (load.source, load.clients) = (Source::Paths(paths), CLIENTS);
            bench.measure(outcome, &case, load)?;
            figures.push(outcome.series(&case, TERCET_THREE)?.median(p50_ms));
        }
        let case = format!("new tag at {size}");
        let led_by = leader(bench, &cluster)?;
        let mut load = bench.load(Workload::Tags, vec![one(TERCET_THREE, &cluster, led_by)]);
        (load.source, load.clients, load.seed) =
            (Source::Made(vec![1 << 10]), CLIENTS, size as u64);
        // Beside those that were counted: they are to stay as many as the size says.
        load.repository = "bench/new-tags".to_owned();
        bench.measure(outcome, &case, load)?;
        figures.push(outcome.series(&case, TERCET_THREE)?.median(p50_ms));
        figures.push(memory(&cluster)?);
        figures.extend([disk(&cluster, 0, "state")?, disk(&cluster, 0, "log")?]);
        figures.push(restart(bench, &mut cluster)?);
        growth.step(size, figures);
    }
    growth.show(outcome)?;
    bench.wait(cluster.shut_down())
}
