//! More edges.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Column, Growth, LATENCY, Picture, RATE};
use crate::{
    bench::{
        Bench,
        outcome::Outcome,
        peers::{
            REPOSITORY, Speech, TAG, TERCET_THREE, cluster_options, pids, push, target, tercet,
        },
        row::Row,
        series::{p50_ms, per_second},
        unit::Unit,
    },
    cluster::Cluster,
    content::Image,
    load::{LoadTarget, Source, Workload},
    wait::wait_until,
};

const SIZES: [usize; 4] = [0, 1, 3, 6];
const QUICK: [usize; 2] = [0, 1];
const VOTERS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) const ROW: Row = Row {
    number: 6,
    name: "edges",
    title: "Edges",
    words: "Edges beside three voters, on the same machine: they have all metadata and a bounded part of the blobs. 16 clients of the \
            voters set new tags; 16 clients of the edges, or of the voters as long as there are none, get a manifest by tag, which \
            asks the leader whether it is the newest.",
    targets: &[],
    body: measure,
};

const CPU: Picture = Picture {
    name: "cpu",
    title: "Processor time of all replicas for a new tag",
    unit: Unit::Milliseconds,
};

static COLUMNS: [Column; 5] = [
    Column { name: "new tags", picture: &RATE },
    Column { name: "manifests", picture: &RATE },
    Column { name: "time of a new tag", picture: &LATENCY },
    Column { name: "time of a manifest", picture: &LATENCY },
    Column { name: "processor of a new tag", picture: &CPU },
];

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let mut cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    push(
        bench,
        &[some(&cluster, 0..VOTERS)],
        &[TERCET_THREE],
        None,
        &Image::random(7, &[1 << 10]),
    )?;
    let mut growth = Growth::new("edges and voters", &COLUMNS);
    for &edges in bench.pick(SIZES.as_slice(), QUICK.as_slice()) {
        while cluster.len() < VOTERS + edges {
            cluster.grow_with(|options| options.setting("node", "role", "\"edge\""))?;
        }
        bench.wait(cluster.wait_ready(DEADLINE))?;
        bench.wait(members(&cluster))?;
        let readers = if edges == 0 { 0..VOTERS } else { VOTERS..VOTERS + edges };
        let mut all = Vec::new();
        for (workload, name, replicas) in
            [(Workload::Tags, "new tags", 0..VOTERS), (Workload::Manifest, "manifests", readers)]
        {
            let case = format!("{name}, {edges} edges");
            let mut load = bench.load(workload, vec![some(&cluster, replicas)]);
            load.source = match workload {
                Workload::Tags => Source::Made(vec![1 << 10]),
                _ => Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() },
            };
            (load.clients, load.seed) = (16, edges as u64 + 1);
            bench.measure(outcome, &case, load)?;
            all.push(outcome.series(&case, TERCET_THREE)?);
        }
        let cpu = all.first().map_or(f64::NAN, |tags| {
            tags.median(|figures| {
                figures.server_cpu_seconds.unwrap_or(f64::NAN) * 1e3
                    / (figures.operations_per_second * figures.seconds)
            })
        });
        let figures = [per_second, p50_ms].into_iter();
        let figures = figures.flat_map(|figure| all.iter().map(move |one| one.median(figure)));
        growth.step(VOTERS + edges, figures.chain([cpu]));
    }
    growth.show(outcome)?;
    bench.wait(cluster.shut_down())
}

/// Some replicas as a target; its processor time is that of all.
fn some(cluster: &Cluster, replicas: std::ops::Range<usize>) -> LoadTarget {
    let urls = replicas.map(|index| cluster.registry_url(index)).collect();
    target(TERCET_THREE, urls, pids(cluster))
}

/// Waits until the leader counts all edges as members.
async fn members(cluster: &Cluster) -> Result<()> {
    wait_until("all edges are members", DEADLINE, || async {
        let status = cluster.status(cluster.leader().await?).await?;
        for index in VOTERS..cluster.len() {
            let member = status.member(&cluster.replica(index).name);
            ensure!(member.is_some_and(|member| member.kind == "edge"), "{index} is no member yet");
        }
        Ok(())
    })
    .await
}
