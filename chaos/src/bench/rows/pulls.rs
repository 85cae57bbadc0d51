//! Large blobs, as containerd pulls them.

use std::{fs, time::Duration};

use anyhow::Result;

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{
        DISTRIBUTION, Distribution, NGINX, Nginx, REPOSITORY, Speech, TAG, TERCET, cluster_options,
        push, tercet, whole,
    },
    plot::Plot,
    row::Row,
    series::{Series, cpu_per_gigabyte, megabytes_per_second},
    target::Target,
    unit::Unit,
};
use crate::{
    content::Image,
    load::{Source, Workload},
};

const CONNECTIONS: [usize; 3] = [1, 4, 64];
/// With many connections each of them should come to the end of a pull.
const MANY_TIME: Duration = Duration::from_secs(12);

pub(super) const PLAIN: Row = Row {
    number: 1,
    name: "pull",
    title: "Pull of a large blob, HTTP",
    words: "One layer of 256 MiB is pulled over and over by 1, 4 and 64 clients, each on a connection that it keeps. The \
            layer is in the page cache of all servers. nginx sends files with `sendfile`: nothing that reads a file and \
            writes to a socket does less. Tercet verifies every block that it sends.",
    targets: &[
        Target::ratio("nginx 1", 1.0, "bytes per second on 1 connection, of nginx"),
        Target::ratio("nginx 4", 0.9, "bytes per second on 4 connections, of nginx"),
        Target::ratio("nginx 64", 0.9, "bytes per second on 64 connections, of nginx"),
        Target::most("cpu 4", 0.45, Unit::SecondsPerGigabyte, "processor time with 4 connections"),
        Target::most(
            "cpu 64",
            0.45,
            Unit::SecondsPerGigabyte,
            "processor time with 64 connections",
        ),
    ],
    body: |bench, outcome| {
        pulls(bench, outcome, Speech::Plain)?;
        for (key, clients) in [("cpu 4", 4), ("cpu 64", 64)] {
            let used = outcome.series(&case(clients), TERCET)?.each(cpu_per_gigabyte);
            outcome.judge(key, &used)?;
        }
        Ok(())
    },
};

pub(super) const TLS: Row = Row {
    number: 2,
    name: "pull-tls",
    title: "Pull of a large blob, TLS 1.3",
    words: "The same over TLS 1.3. The client decrypts on the same cores, for all servers alike.",
    targets: &[
        Target::ratio("nginx 1", 1.0, "bytes per second on 1 connection, of nginx"),
        Target::ratio("nginx 4", 1.0, "bytes per second on 4 connections, of nginx"),
        Target::ratio("nginx 64", 1.0, "bytes per second on 64 connections, of nginx"),
    ],
    body: |bench, outcome| pulls(bench, outcome, Speech::Tls),
};

fn case(clients: usize) -> String {
    match clients {
        1 => "1 connection".to_owned(),
        clients => format!("{clients} connections"),
    }
}

fn pulls(bench: &Bench, outcome: &mut Outcome, speech: Speech) -> Result<()> {
    let image = Image::random(7, &[bench.pick(256 << 20, 4 << 20)]);
    let cluster = tercet(bench, outcome, TERCET, cluster_options(1, speech))?;
    let (certificate, ca) = match speech {
        Speech::Plain => (None, None),
        Speech::Tls => {
            let authority = cluster.authority()?;
            let certificate = bench.wait(authority.issue("peer"))?;
            (Some(certificate), Some(fs::read(authority.certificate_path())?))
        }
    };
    let nginx = Nginx::start(bench, outcome, &image, certificate.as_ref())?;
    let distribution = Distribution::start(bench, outcome, certificate.as_ref())?;
    let targets = vec![whole(TERCET, &cluster), nginx.target(), distribution.target()];
    push(bench, &targets, &[TERCET, DISTRIBUTION], ca.as_deref(), &image)?;
    let mut all = Vec::new();
    for clients in CONNECTIONS {
        let mut load = bench.load(Workload::Pull, targets.clone());
        load.source = Source::Existing { repository: REPOSITORY.to_owned(), tag: TAG.to_owned() };
        (load.clients, load.ca) = (clients, ca.clone());
        if clients > 4 {
            load.time = load.time.max(bench.pick(MANY_TIME, load.time));
        }
        bench.measure(outcome, &case(clients), load)?;
        for server in [TERCET, NGINX, DISTRIBUTION] {
            all.push(outcome.series(&case(clients), server)?);
        }
        let ratio = outcome
            .series(&case(clients), TERCET)?
            .over(&outcome.series(&case(clients), NGINX)?, megabytes_per_second);
        outcome.judge(&format!("nginx {clients}"), &ratio)?;
    }
    show(outcome, &all);
    bench.wait(cluster.shut_down())
}

fn show(outcome: &mut Outcome, all: &[Series]) {
    let mut table = Table::new(&["connections", "server", "MB/s", "server s/GB", "client s/GB"]);
    for series in all {
        let client = series
            .median(|figures| figures.client_cpu_seconds / (figures.bytes_received as f64 / 1e9));
        table.line([
            series.case.clone(),
            series.target.clone(),
            Unit::Count.show(series.median(megabytes_per_second)),
            format!("{:.2}", series.median(cpu_per_gigabyte)),
            format!("{client:.2}"),
        ]);
    }
    outcome.tables.push(table);
    let unit = Unit::MegabytesPerSecond;
    outcome.plots.push(Plot::of("bytes", "Bytes per second", unit, all, megabytes_per_second));
    let title = "Processor time of the server for a gigabyte";
    outcome.plots.push(Plot::of("cpu", title, Unit::SecondsPerGigabyte, all, cpu_per_gigabyte));
}
