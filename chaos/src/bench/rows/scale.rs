//! The same work with a hundred times the tags.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{
    super::{
        Bench,
        outcome::{Outcome, Table},
        peers::{Speech, TERCET_THREE, cluster_options, leader, one, tercet},
        plot::Plot,
        row::Row,
        seeding::{TAGS_EACH, fill, repository, tag},
        series::{p50_ms, p99_ms, per_second},
        target::Target,
        unit::Unit,
    },
    memory::resident,
    start::ready,
};
use crate::{
    client::RegistryClient,
    cluster::Cluster,
    load::{Source, Workload},
    wait::wait_until,
};

const CLIENTS: usize = 8;
/// Of a page: half of what there is at the smaller size, so that every page of the catalog is whole.
const PAGE: usize = 50;
/// Different requests of each kind, spread over everything that there is.
const PATHS: usize = 2_000;
/// Between what was written and what is asked: the store has its own work after it.
const REST: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(300);

pub(super) const ROW: Row = Row {
    number: 8,
    name: "scale",
    title: "A million tags",
    words: "Repositories with 100 tags each are made through the API of three replicas, first 100 of them (10,000 tags), \
            then 10,000 (1,000,000 tags), each with a manifest of its own. Pages of 50 tags and of 50 repositories, and \
            manifests by tag, are asked of the leader by 8 clients: 2,000 of each in turn, spread over everything, and asked \
            once before. Then a follower is killed and started, and a replica that is new joins.",
    targets: &[
        Target::ratio_at_most("tags", 1.5, "median time of a page of tags, of that at 10,000"),
        Target::ratio_at_most(
            "catalog",
            1.5,
            "median time of a page of the catalog, of that at 10,000",
        ),
        Target::ratio_at_most(
            "manifest",
            1.5,
            "median time of a manifest by tag, of that at 10,000",
        ),
        Target::most("restart", 5.0, Unit::Seconds, "restart of a replica until ready"),
        Target::most("join", 60.0, Unit::Seconds, "a new replica until it has all metadata"),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let (few, many) = bench.pick((100, 10_000), (4, 8));
    let mut cluster = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let clients: Vec<RegistryClient> =
        (0..cluster.len()).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for (numbers, count) in [(0..few, few), (few..many, many)] {
        let start = Instant::now();
        bench.wait(fill(&clients, numbers.clone()))?;
        let tags = numbers.len() * TAGS_EACH;
        outcome.notes.push(format!(
            "{tags} tags in {} repositories were made in {:.1} s.",
            numbers.len(),
            start.elapsed().as_secs_f64()
        ));
        bench.rest(bench.pick(REST, Duration::ZERO));
        for (name, paths) in requests(count) {
            let (case, led_by) = (case(name, count), leader(bench, &cluster)?);
            let mut load = bench.load(Workload::Pull, vec![one(TERCET_THREE, &cluster, led_by)]);
            (load.source, load.clients) = (Source::Paths(paths), CLIENTS);
            bench.measure(outcome, &case, load)?;
            bench
                .insist(leader(bench, &cluster)? == led_by, "another replica leads than before")?;
            all.push(outcome.series(&case, TERCET_THREE)?);
        }
        outcome.sample(&format!("memory_mb_at_{}", count * TAGS_EACH), &resident(&cluster)?);
    }
    for (name, _) in requests(1) {
        let at = |count| outcome.series(&case(name, count), TERCET_THREE);
        outcome.judge(name, &at(many)?.over(&at(few)?, p50_ms))?;
    }
    let mut table = Table::new(&["request", "requests/s", "p50", "p99"]);
    for series in &all {
        table.line([
            series.case.clone(),
            Unit::Count.show(series.median(per_second)),
            Unit::Milliseconds.show(series.median(p50_ms)),
            Unit::Milliseconds.show(series.median(p99_ms)),
        ]);
    }
    outcome.tables.push(table);
    let title = "Median time of a request";
    outcome.plots.push(Plot::of("p50", title, Unit::Milliseconds, &all, p50_ms));
    let restart = restart(bench, &mut cluster)?;
    outcome.judge("restart", &[restart])?;
    let join = join(bench, &mut cluster)?;
    outcome.judge("join", &[join])?;
    outcome.sample("restart_s", &[restart]);
    outcome.sample("join_s", &[join]);
    bench.wait(cluster.shut_down())
}

fn case(name: &str, repositories: usize) -> String {
    format!("{name} at {} tags", repositories * TAGS_EACH)
}

/// What is asked for: name of a target -> paths.
fn requests(repositories: usize) -> [(&'static str, Vec<String>); 3] {
    // A prime step: neighbours in time are none in the store.
    let paths = |first: usize, path: fn(usize, usize) -> String| {
        let count = first.max(1);
        (0..PATHS).map(|turn| path((turn * 7_919) % count, turn / count)).collect()
    };
    [
        (
            "tags",
            paths(repositories, |number, _| {
                format!("/v2/{}/tags/list?n={PAGE}", repository(number))
            }),
        ),
        (
            "catalog",
            paths(repositories.saturating_sub(PAGE), |number, _| {
                format!("/v2/_catalog?n={PAGE}&last={}", repository(number))
            }),
        ),
        (
            "manifest",
            paths(repositories, |number, lap| {
                format!("/v2/{}/manifests/{}", repository(number), tag(lap * 7 % TAGS_EACH))
            }),
        ),
    ]
}

/// Seconds from the start of a follower that was killed until it is ready.
fn restart(bench: &Bench, cluster: &mut Cluster) -> Result<f64> {
    let index = (leader(bench, cluster)? + 1) % cluster.len();
    cluster.kill9(index)?;
    let start = Instant::now();
    cluster.restart(index)?;
    bench.wait(ready(cluster, index, DEADLINE))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds from the start of a new replica until it has applied all that the leader had then.
fn join(bench: &Bench, cluster: &mut Cluster) -> Result<f64> {
    let led_by = leader(bench, cluster)?;
    let wanted = bench.wait(cluster.status(led_by))?.applied;
    let start = Instant::now();
    let index = cluster.grow()?;
    let cluster = &*cluster;
    bench.wait(wait_until("the new replica has all metadata", DEADLINE, || async {
        let status = cluster.status(index).await?;
        ensure!(status.applied >= wanted, "it has applied {} of {wanted}", status.applied);
        Ok(())
    }))?;
    let seconds = start.elapsed().as_secs_f64();
    let client = cluster.client(index)?;
    let answer = bench.wait(client.get_manifest(&repository(0), &tag(0)))?;
    answer.expect(200).context("the new replica gives what it has")?;
    Ok(seconds)
}
