//! More blobs.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Column, DISK, Growth, LATENCY, MEMORY, REST, RESTART, disk, memory, ranges, restart};
use crate::{
    bench::{
        Bench,
        outcome::Outcome,
        peers::{Speech, TERCET_THREE, cluster_options, tercet, whole},
        row::Row,
        series::p50_ms,
    },
    client::RegistryClient,
    content::Blob,
    load::{Source, Workload},
};

const SIZES: [usize; 3] = [1_000, 10_000, 50_000];
const QUICK: [usize; 2] = [20, 40];
const CLIENTS: usize = 8;
/// Pushes at the same time.
const AT_ONCE: usize = 64;
/// Bytes of a blob.
const BYTES: usize = 1 << 10;
const PATHS: usize = 2_000;
const REPOSITORY: &str = "bench/blobs";

pub(super) const ROW: Row = Row {
    number: 3,
    name: "blobs",
    title: "Blobs",
    words: "Blobs of 1 KiB in one repository of three replicas, in whose folders each is a file. At each size 8 clients pull blobs, \
            spread over all, from all replicas, and push new ones.",
    targets: &[],
    body: measure,
};

static COLUMNS: [Column; 7] = [
    Column { name: "pull", picture: &LATENCY },
    Column { name: "push", picture: &LATENCY },
    Column { name: "memory", picture: &MEMORY },
    Column { name: "blobs", picture: &DISK },
    Column { name: "metadata", picture: &DISK },
    Column { name: "Raft log", picture: &DISK },
    Column { name: "restart", picture: &RESTART },
];

/// The blob of this number.
fn blob(number: usize) -> Blob {
    let mut bytes = format!("blob {number} ").into_bytes();
    bytes.resize(BYTES, b'.');
    Blob::new(bytes)
}

async fn fill(clients: &[RegistryClient], numbers: std::ops::Range<usize>) -> Result<()> {
    let first = clients.first().context("a registry has a replica")?;
    stream::iter(numbers)
        .map(|number| {
            let client = clients.get(number % clients.len().max(1)).unwrap_or(first);
            async move { client.push_blob_at_once(REPOSITORY, &blob(number)).await }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let mut cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let sizes = bench.pick(SIZES.as_slice(), QUICK.as_slice());
    let mut growth = Growth::new("blobs", &COLUMNS);
    for (range, &size) in ranges(sizes).into_iter().zip(sizes) {
        bench.wait(fill(&clients, range))?;
        bench.rest(bench.pick(REST, Duration::ZERO));
        let case = format!("pull at {size}");
        let mut load = bench.load(Workload::Pull, vec![whole(TERCET_THREE, &cluster)]);
        let paths = (0..PATHS)
            .map(|turn| format!("/v2/{REPOSITORY}/blobs/{}", blob((turn * 7_919) % size).digest));
        (load.source, load.clients) = (Source::Paths(paths.collect()), CLIENTS);
        bench.measure(outcome, &case, load)?;
        let mut figures = vec![outcome.series(&case, TERCET_THREE)?.median(p50_ms)];
        // Before the pushes of the measurement: the disk is that of as many as the size says.
        let on_disk = [
            memory(&cluster)?,
            disk(&cluster, 0, "blobs")?,
            disk(&cluster, 0, "state")?,
            disk(&cluster, 0, "log")?,
        ];
        let case = format!("push at {size}");
        let mut load = bench.load(Workload::Push, vec![whole(TERCET_THREE, &cluster)]);
        (load.source, load.clients, load.seed) = (Source::Made(vec![BYTES]), CLIENTS, size as u64);
        bench.measure(outcome, &case, load)?;
        figures.push(outcome.series(&case, TERCET_THREE)?.median(p50_ms));
        figures.extend(on_disk);
        figures.push(restart(bench, &mut cluster)?);
        growth.step(size, figures);
    }
    growth.show(outcome)?;
    bench.wait(cluster.shut_down())
}
