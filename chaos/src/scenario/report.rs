//! What a run came to, as a table and as JSON.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::workload::{Counts, Invariant};

/// The judgement of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every invariant held, and the faults were real.
    Held,
    /// An invariant was broken, or the cluster did not do what the scenario asks of it.
    Violated,
    /// The run shows nothing: a fault never happened, or hardly any work did.
    Void,
}

/// Everything that is worth keeping of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Its rows in the catalogue of faults.
    pub rows: Vec<u8>,
    /// What all random choices were drawn from.
    pub seed: u64,
    /// `short` or `full`.
    pub length: String,
    /// What the program under test says it is.
    pub version: String,
    /// The judgement.
    pub verdict: Verdict,
    /// Why, if it is not `held`.
    pub reasons: Vec<String>,
    /// How operations ended.
    pub operations: Counts,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Acknowledged operations per second while the load ran.
    pub acknowledged_per_second: f64,
    /// Tags checked for linearizability, and operations on them.
    pub tags_checked: usize,
    /// Operations in the checked histories.
    pub tag_operations: usize,
    /// Pulls of the last check: everything kept, from every replica.
    pub checked_pulls: usize,
    /// From the end of the last fault until all replicas agreed and held everything.
    pub full_replication_ms: Option<u64>,
    /// From a fault that leaves a majority until writes went on, each time.
    pub resumed_ms: Vec<u64>,
    /// Longest time between two acknowledged writes, with or without a majority.
    pub longest_pause_ms: u64,
    /// What only this scenario measures.
    pub figures: BTreeMap<String, Value>,
    /// What happened, in order.
    pub events: Vec<String>,
    /// From start to verdict.
    pub seconds: f64,
}

impl Report {
    /// The report as a table.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:<26} {value}");
        };
        let rows: Vec<String> = self.rows.iter().map(u8::to_string).collect();
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        row("scenario", format!("{} (rows: {})", self.scenario, rows.join(" ")));
        row("seed, length", format!("{}, {}", self.seed, self.length));
        row("under test", self.version.clone());
        row("verdict", format!("{:?}", self.verdict).to_uppercase());
        for reason in &self.reasons {
            row("because", reason.clone());
        }
        row("faults injected", faults.join(", "));
        row("acknowledged writes", self.operations.acknowledged_writes.to_string());
        row("acknowledged reads", self.operations.acknowledged_reads.to_string());
        row("acknowledged per second", format!("{:.1}", self.acknowledged_per_second));
        row("refused", self.operations.refused.to_string());
        row("unknown", self.operations.unknown.to_string());
        row("failed (never sent)", self.operations.failed.to_string());
        row("stale reads, said so", self.operations.stale_reads.to_string());
        row("failed pulls", self.operations.failed_pulls.to_string());
        row("operations lost", self.operations.lost.to_string());
        row("wrong bytes", self.operations.wrong_bytes.to_string());
        row(
            "tags checked",
            format!("{}, of {} operations", self.tags_checked, self.tag_operations),
        );
        row("pulls of the last check", self.checked_pulls.to_string());
        let replicated = self.full_replication_ms.map(|time| format!("{time} ms"));
        row("full replication after", replicated.unwrap_or_else(|| "not measured".to_owned()));
        if !self.resumed_ms.is_empty() {
            row("writes resumed after", quantiles(&self.resumed_ms));
        }
        row("longest pause of writes", format!("{} ms", self.longest_pause_ms));
        for (name, value) in &self.figures {
            row(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        row("took", format!("{:.1} s", self.seconds));
        text
    }

    /// Writes the report as `<scenario>-<seed>.json` into a folder.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join(format!("{}-{}.json", self.scenario, self.seed));
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// The reason for a broken promise, in words.
pub(crate) fn reason(invariant: Invariant, what: &str) -> String {
    format!("{invariant} ({}): {what}", invariant.words())
}

/// Median, 99th percentile and maximum of milliseconds.
pub(crate) fn quantiles(milliseconds: &[u64]) -> String {
    let mut sorted = milliseconds.to_vec();
    sorted.sort_unstable();
    format!(
        "p50 {} ms, p99 {} ms, max {} ms, of {}",
        quantile(&sorted, 50),
        quantile(&sorted, 99),
        quantile(&sorted, 100),
        sorted.len()
    )
}

/// The smallest value that so many percent of the sorted values do not exceed.
pub(crate) fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<u64> = (1..=20).collect();
        assert_eq!(quantile(&values, 50), 10);
        assert_eq!(quantile(&values, 99), 20);
        assert_eq!(quantile(&[7], 50), 7);
        assert_eq!(quantile(&[], 99), 0);
    }
}
