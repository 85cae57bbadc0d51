//! What things cost as they get more: one file for each thing.

mod blobs;
mod clients;
mod edges;
mod replicas;
mod repositories;
mod tags;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{
    Bench,
    curve::{Curves, Line},
    outcome::{Outcome, Table},
    peers::leader,
    row::Row,
    rows::{ready, resident},
    unit::Unit,
};
use crate::{cluster::Cluster, files::folder_bytes};

/// In the order of the page.
pub(super) static ROWS: [&Row; 6] =
    [&tags::ROW, &repositories::ROW, &blobs::ROW, &replicas::ROW, &clients::ROW, &edges::ROW];

/// Between what was written and what is asked: the store has its own work after it.
const REST: Duration = Duration::from_secs(5);
const RESTART_DEADLINE: Duration = Duration::from_secs(300);

/// A picture.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    /// The end of its file name.
    name: &'static str,
    title: &'static str,
    unit: Unit,
}

/// A figure that is taken at each size.
#[derive(Debug)]
struct Column {
    name: &'static str,
    /// What it is drawn in.
    picture: &'static Picture,
}

const LATENCY: Picture =
    Picture { name: "p50", title: "Median time of an operation", unit: Unit::Milliseconds };
const MEMORY: Picture =
    Picture { name: "memory", title: "Resident memory of a replica", unit: Unit::Megabytes };
const DISK: Picture = Picture { name: "disk", title: "Disk of a replica", unit: Unit::Megabytes };
const RESTART: Picture = Picture {
    name: "restart",
    title: "Start of a killed follower until ready",
    unit: Unit::Seconds,
};
const RATE: Picture =
    Picture { name: "rate", title: "Operations per second", unit: Unit::PerSecond };

/// The figures of a row so far.
struct Growth {
    /// What there is more of.
    across: &'static str,
    columns: &'static [Column],
    steps: Vec<Step>,
}

/// The figures at one size, in the order of the columns.
struct Step {
    size: usize,
    figures: Vec<f64>,
}

impl Growth {
    fn new(across: &'static str, columns: &'static [Column]) -> Self {
        Self { across, columns, steps: Vec::new() }
    }

    fn step(&mut self, size: usize, figures: impl IntoIterator<Item = f64>) {
        self.steps.push(Step { size, figures: figures.into_iter().collect() });
    }

    /// A table of all of it, and a picture of what belongs together.
    ///
    /// # Errors
    /// If a size has not a figure for each column.
    fn show(self, outcome: &mut Outcome) -> Result<()> {
        let headings: Vec<&str> = [self.across]
            .into_iter()
            .chain(self.columns.iter().map(|column| column.name))
            .collect();
        let mut table = Table::new(&headings);
        for Step { size, figures } in &self.steps {
            anyhow::ensure!(figures.len() == self.columns.len(), "figures at {size} are missing");
            let shown = self.columns.iter().zip(figures);
            let shown = shown.map(|(column, figure)| column.picture.unit.show(*figure));
            table.line([Unit::Count.show_grouped(*size as f64)].into_iter().chain(shown));
        }
        outcome.tables.push(table);
        let mut pictures: Vec<Curves> = Vec::new();
        for (number, column) in self.columns.iter().enumerate() {
            let Picture { name, title, unit } = *column.picture;
            let points = self.steps.iter().map(|step| {
                (step.size as f64, step.figures.get(number).copied().unwrap_or(f64::NAN))
            });
            let line = Line { name: column.name, points: points.collect() };
            let all = self.steps.iter().filter_map(|step| step.figures.get(number).copied());
            outcome.sample(column.name, &all.collect::<Vec<_>>());
            match pictures.iter_mut().find(|picture| picture.name == name) {
                Some(picture) => picture.lines.push(line),
                None => {
                    let across = self.across;
                    pictures.push(Curves { name, title, across, unit, lines: vec![line] });
                }
            }
        }
        outcome
            .sample("sizes", &self.steps.iter().map(|step| step.size as f64).collect::<Vec<_>>());
        outcome.curves.extend(pictures);
        Ok(())
    }
}

/// The ranges that lead from nothing to each of these sizes.
fn ranges(sizes: &[usize]) -> Vec<std::ops::Range<usize>> {
    let starts = [0].into_iter().chain(sizes.iter().copied());
    starts.zip(sizes.iter().copied()).map(|(start, end)| start..end).collect()
}

/// Of the replica that has most, in MB.
fn memory(cluster: &Cluster) -> Result<f64> {
    Ok(resident(cluster)?.into_iter().fold(0.0, f64::max))
}

/// What a folder of the data directory of a replica takes on the disk, in MB.
fn disk(cluster: &Cluster, index: usize, folder: &str) -> Result<f64> {
    Ok(folder_bytes(&cluster.replica(index).data_dir.join(folder))? as f64 / 1e6)
}

/// Seconds from the start of a follower that was killed until it is ready.
fn restart(bench: &Bench, cluster: &mut Cluster) -> Result<f64> {
    let index = (leader(bench, cluster)? + 1) % cluster.len();
    cluster.kill9(index)?;
    let start = Instant::now();
    cluster.restart(index)?;
    bench.wait(ready(cluster, index, RESTART_DEADLINE))?;
    let seconds = start.elapsed().as_secs_f64();
    bench.wait(cluster.wait_caught_up(index, RESTART_DEADLINE)).context("after a restart")?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_begins_where_the_one_before_ended() {
        assert_eq!(ranges(&[10, 100, 1_000]), [0..10, 10..100, 100..1_000]);
    }
}
