//! A report as lines of text.

use std::fmt::Write as _;

use super::Report;

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
        row("verdict", self.verdict.word().to_uppercase());
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
