//! Small documents: what every pull begins with.

use anyhow::Result;

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{
        DISTRIBUTION, Distribution, NGINX, Nginx, REPOSITORY, Speech, TAG, TERCET, TERCET_THREE,
        cluster_options, leader, one, push, tercet, whole,
    },
    plot::Plot,
    row::Row,
    series::{p50_ms, p99_ms, per_second},
    target::Target,
    unit::Unit,
};
use crate::{
    content::Image,
    load::{Source, Workload},
};

const CLIENTS: usize = 32;
/// Of three replicas.
const LEADER: &str = "leader";
const FOLLOWER: &str = "follower";

pub(super) const ROW: Row = Row {
    number: 3,
    name: "manifest",
    title: "Manifest by tag",
    words: "The manifest of an image with three layers is pulled by its tag, over and over, by 32 clients. Every answer of \
            Tercet is linearizable: the leader has made sure that it leads, and a follower has asked the leader how far \
            it has to be. Leader and follower are of three replicas; tercet is one by itself. nginx sends a static file \
            of the same bytes. Trow was measured elsewhere at 0.12 to 0.2 of nginx, so four times its better figure is 0.8 \
            of nginx.",
    targets: &[
        Target::ratio("nginx", 0.5, "requests per second of the leader, of nginx"),
        Target::ratio("leader", 0.7, "requests per second of a follower, of the leader"),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let image = Image::random(7, &[16 << 10; 3]);
    let one_replica = tercet(bench, outcome, TERCET, cluster_options(1, Speech::Plain))?;
    let three = tercet(bench, outcome, TERCET_THREE, cluster_options(3, Speech::Plain))?;
    let nginx = Nginx::start(bench, outcome, &image, None)?;
    let distribution = Distribution::start(bench, outcome, None)?;
    let led_by = leader(bench, &three)?;
    let targets = vec![
        one(LEADER, &three, led_by),
        one(FOLLOWER, &three, (led_by + 1) % three.len()),
        whole(TERCET, &one_replica),
        nginx.target(),
        distribution.target(),
    ];
    push(bench, &targets, &[LEADER, TERCET, DISTRIBUTION], None, &image)?;
    let mut load = bench.load(Workload::Manifest, targets);
    load.source = Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() };
    load.clients = CLIENTS;
    let case = format!("{CLIENTS} clients");
    bench.measure(outcome, &case, load)?;
    bench.insist(leader(bench, &three)? == led_by, "another replica leads than before")?;
    let names = [LEADER, FOLLOWER, TERCET, NGINX, DISTRIBUTION];
    let all: Vec<_> =
        names.iter().map(|name| outcome.series(&case, name)).collect::<Result<_>>()?;
    let [leader, follower, _, nginx, _] = all.as_slice() else { return Ok(()) };
    outcome.judge("nginx", &leader.over(nginx, per_second))?;
    outcome.judge("leader", &follower.over(leader, per_second))?;
    let mut table = Table::new(&["server", "requests/s", "p50", "p99", "server cores"]);
    for series in &all {
        table.line([
            series.target.clone(),
            Unit::Count.show(series.median(per_second)),
            Unit::Milliseconds.show(series.median(p50_ms)),
            Unit::Milliseconds.show(series.median(p99_ms)),
            format!("{:.2}", series.median(super::server_cores)),
        ]);
    }
    outcome.tables.push(table);
    let title = "Manifests per second, 32 clients";
    outcome.plots.push(Plot::of("rate", title, Unit::PerSecond, &all, per_second));
    bench.wait(one_replica.shut_down())?;
    bench.wait(three.shut_down())
}
