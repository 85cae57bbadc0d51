//! An empty replica's way to its first answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::{
    Bench,
    outcome::{Outcome, Table},
    peers::{Speech, cluster_options},
    row::Row,
    series::{median, quantile},
    target::Target,
    unit::Unit,
};
use crate::cluster::Cluster;

/// Without an answer for so long, it does not start at all.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(2);

pub(super) const ROW: Row = Row {
    number: 11,
    name: "start",
    title: "Cold start",
    words: "A replica with an empty folder founds its group of one. The time is that from the start of the process until \
            `/readyz` says 200, asked every 2 ms; by then it has written its identity, opened its store, led, and \
            committed.",
    targets: &[Target::most("ready", 300.0, Unit::Milliseconds, "until ready, median")],
    body: measure,
};

fn measure(bench: &Bench, outcome: &mut Outcome) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..bench.pick(11, 2) {
        let mut cluster = bench.wait(Cluster::prepare(cluster_options(1, Speech::Plain)))?;
        let start = Instant::now();
        cluster.restart(0)?;
        bench.wait(ready(&cluster, 0, DEADLINE))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        bench.wait(cluster.shut_down())?;
    }
    outcome.judge("ready", &times)?;
    let mut table = Table::new(&["starts", "median", "slowest"]);
    table.line([
        times.len().to_string(),
        Unit::Milliseconds.show(median(&times)),
        Unit::Milliseconds.show(quantile(&times, 1.0)),
    ]);
    outcome.tables.push(table);
    outcome.sample("start_ms", &times);
    Ok(())
}

/// Waits until a replica says that it is ready.
pub(in crate::bench) async fn ready(
    cluster: &Cluster,
    index: usize,
    deadline: Duration,
) -> Result<()> {
    let asking = async {
        while !matches!(cluster.ops_status(index, "/readyz").await, Ok(200)) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let name = &cluster.replica(index).name;
    tokio::time::timeout(deadline, asking)
        .await
        .with_context(|| format!("{name} was not ready within {deadline:?}"))
}
