//! More replicas.

use anyhow::{Context, Result};

use super::{Column, Growth, LATENCY, MEMORY, Picture, RATE, memory};
use crate::{
    bench::{
        Bench,
        outcome::Outcome,
        peers::{REPOSITORY, Speech, TAG, cluster_options, push, tercet, whole},
        row::Row,
        series::{megabytes_per_second, p50_ms, per_second},
        unit::Unit,
    },
    cluster::Cluster,
    content::Image,
    load::{Source, Workload},
};

const SIZES: [usize; 3] = [1, 3, 5];
const QUICK: [usize; 2] = [1, 3];
/// What replicas send to each other, Raft not counted.
const SENT: &str = "tercet_peer_bytes_sent_total";

pub(super) const ROW: Row = Row {
    number: 4,
    name: "replicas",
    title: "Replicas",
    words: "One, three and five replicas on the same machine: more of them have no more processors and disks here, so this is what \
            a replica more costs, and not what it gives. 4 clients push and pull layers of 16 MiB, 16 set new tags, 32 get a \
            manifest by tag; clients are spread over all replicas.",
    targets: &[],
    body: measure,
};

const BYTES_RATE: Picture =
    Picture { name: "bytes", title: "Bytes per second", unit: Unit::MegabytesPerSecond };
const COMMIT_CPU: Picture = Picture {
    name: "cpu",
    title: "Processor time of all replicas for an operation",
    unit: Unit::Milliseconds,
};
const PEER_BYTES: Picture = Picture {
    name: "peers",
    title: "Bytes between replicas for each byte that was pushed",
    unit: Unit::Times,
};

static COLUMNS: [Column; 8] = [
    Column { name: "push", picture: &BYTES_RATE },
    Column { name: "pull", picture: &BYTES_RATE },
    Column { name: "new tags", picture: &RATE },
    Column { name: "manifests", picture: &RATE },
    Column { name: "time of a new tag", picture: &LATENCY },
    Column { name: "processor of a new tag", picture: &COMMIT_CPU },
    Column { name: "sent to peers", picture: &PEER_BYTES },
    Column { name: "memory", picture: &MEMORY },
];

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let size = bench.pick(16 << 20, 1 << 20);
    let mut growth = Growth::new("replicas", &COLUMNS);
    for &replicas in bench.pick(SIZES.as_slice(), QUICK.as_slice()) {
        let name = format!("tercet-{replicas}");
        let cluster = tercet(bench, outcome, &name, cluster_options(replicas, Speech::Plain))?;
        let target = || whole(&name, &cluster);
        push(bench, &[target()], &[&name], None, &Image::random(7, &[size]))?;
        let mut measured = |what: &str, workload, clients, source| {
            let mut load = bench.load(workload, vec![target()]);
            (load.source, load.clients) = (source, clients);
            bench.measure(outcome, what, load)?;
            outcome.series(what, &name)
        };
        let existing =
            || Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() };
        let before = sent(bench, &cluster)?;
        let pushes = measured("push", Workload::Push, 4, Source::Made(vec![size]))?;
        let pushed: f64 = pushes.figures.iter().map(|figures| figures.bytes_sent as f64).sum();
        let sent = sent(bench, &cluster)? - before;
        let pulls = measured("pull", Workload::Pull, 4, existing())?;
        let tags = measured("new tags", Workload::Tags, 16, Source::Made(vec![1 << 10]))?;
        let manifests = measured("manifests", Workload::Manifest, 32, existing())?;
        let cpu = tags.median(|figures| {
            figures.server_cpu_seconds.unwrap_or(f64::NAN) * 1e3
                / (figures.operations_per_second * figures.seconds)
        });
        growth.step(
            replicas,
            [
                pushes.median(megabytes_per_second),
                pulls.median(megabytes_per_second),
                tags.median(per_second),
                manifests.median(per_second),
                tags.median(p50_ms),
                cpu,
                sent / pushed,
                memory(&cluster)?,
            ],
        );
        bench.wait(cluster.shut_down())?;
    }
    growth.show(outcome)
}

/// Bytes that all replicas have sent to others so far.
fn sent(bench: &Bench, cluster: &Cluster) -> Result<f64> {
    let mut all = 0.0;
    for index in 0..cluster.len() {
        let page = bench.wait(cluster.ops_text(index, "/metrics"))?;
        let values = page.lines().filter(|line| line.starts_with(SENT));
        let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        all += values.reduce(|sum, one| sum + one).with_context(|| format!("no metric {SENT}"))?;
    }
    Ok(all)
}
