//! Small documents: what every pull begins with.

use anyhow::{Result, ensure};

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{
        DISTRIBUTION, Distribution, NGINX, Nginx, REPOSITORY, Speech, TAG, TERCET, cluster_options,
        leader, one, push, tercet, whole,
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
const LEADER: &str = "tercet ×3, leader";
const FOLLOWER: &str = "tercet ×3, follower";
/// What Trow 0.10 was found to reach of nginx, in a comparison on another machine: the least and the most.
const TROW_OF_NGINX: (f64, f64) = (0.12, 0.2);

pub(super) const ROW: Row = Row {
    number: 3,
    name: "manifest",
    title: "Manifest by tag",
    words: "The manifest of an image with three layers is pulled by its tag, over and over, by 32 clients. Every answer of \
            Tercet is linearizable: the leader has made sure that it leads, and a follower has asked the leader how far \
            it has to be. nginx sends a static file of the same bytes.",
    targets: &[
        Target::ratio("nginx", 0.5, "requests per second of the leader, of nginx"),
        Target::ratio("leader", 0.7, "requests per second of a follower, of the leader"),
    ],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let image = Image::random(7, &[16 << 10; 3]);
    let one_replica = tercet(bench, outcome, TERCET, cluster_options(1, Speech::Plain))?;
    let three = tercet(bench, outcome, LEADER, cluster_options(3, Speech::Plain))?;
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
    ensure!(leader(bench, &three)? == led_by, "another replica leads now");
    let names = [LEADER, FOLLOWER, TERCET, NGINX, DISTRIBUTION];
    let all: Vec<_> =
        names.iter().map(|name| outcome.series(&case, name)).collect::<Result<_>>()?;
    let [leader, follower, _, nginx, _] = all.as_slice() else { return Ok(()) };
    let of_nginx = leader.over(nginx, per_second);
    outcome.judge("nginx", of_nginx)?;
    outcome.judge("leader", follower.over(leader, per_second))?;
    let (least, most) = TROW_OF_NGINX;
    outcome.notes.push(format!(
        "Trow 0.10 was not measured here. In an earlier comparison, on another machine, it reached {least} to {most} of \
         nginx; against that the leader is {:.1} to {:.1} times as fast.",
        of_nginx / most,
        of_nginx / least
    ));
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
