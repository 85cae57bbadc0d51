//! One or many scenarios that were run together.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde::Serialize;

use super::{Report, Verdict, html, junit, write};

/// All of one call of the program.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunReport {
    /// What it was, such as `run --all`.
    pub title: String,
    /// What everything random was drawn from.
    pub seed: u64,
    /// What the program under test says it is.
    pub version: String,
    /// The commit that the program was started on, if it was in a work tree.
    pub commit: Option<String>,
    /// When it began, in seconds since 1970.
    pub started_unix_s: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it was ended by a signal.
    pub interrupted: bool,
    /// Scenarios that were asked for and never begun: time was over, or it was interrupted.
    pub not_run: Vec<String>,
    /// In the order in which they were run.
    #[serde(skip)]
    pub reports: Vec<Report>,
}

/// Sums over all reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Scenarios by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Acknowledged writes.
    pub acknowledged_writes: u64,
    /// Acknowledged reads.
    pub acknowledged_reads: u64,
    /// Refused.
    pub refused: u64,
    /// Of unknown outcome.
    pub unknown: u64,
    /// Never sent.
    pub failed: u64,
    /// Acknowledged things that were gone.
    pub lost: u64,
    /// Answers with wrong bytes.
    pub wrong_bytes: u64,
    /// Broken promises.
    pub violations: u64,
    /// Pulls of the last checks.
    pub checked_pulls: u64,
    /// Operations in the checked histories of tags.
    pub tag_operations: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
}

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Sums and the list of runs; each run has a file of its own beside it.
    pub json: PathBuf,
    /// For CI.
    pub junit: PathBuf,
    /// For people.
    pub html: PathBuf,
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    run: &'a RunReport,
    verdict: Verdict,
    totals: Totals,
    runs: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    scenario: &'a str,
    seed: u64,
    length: &'a str,
    verdict: Verdict,
    reasons: &'a [String],
    seconds: f64,
}

impl RunReport {
    /// The judgement over all. A run that was interrupted shows nothing more than what it has broken.
    pub fn verdict(&self) -> Verdict {
        let interrupted = self.interrupted.then_some(Verdict::Void);
        Verdict::of_all(self.reports.iter().map(|report| report.verdict).chain(interrupted))
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for report in &self.reports {
            let counts = &report.operations;
            *totals.verdicts.entry(report.verdict.word()).or_default() += 1;
            totals.acknowledged_writes += counts.acknowledged_writes;
            totals.acknowledged_reads += counts.acknowledged_reads;
            totals.refused += counts.refused;
            totals.unknown += counts.unknown;
            totals.failed += counts.failed;
            totals.lost += counts.lost;
            totals.wrong_bytes += counts.wrong_bytes;
            totals.violations += counts.violations;
            totals.checked_pulls += report.checked_pulls as u64;
            totals.tag_operations += report.tag_operations as u64;
            for (kind, count) in &report.faults {
                *totals.faults.entry(kind.clone()).or_default() += count;
            }
        }
        totals
    }

    /// A line for each scenario, and the sums.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let totals = self.totals();
        let mut line = |words: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{words}");
        };
        line(format!("{}, seed {}: {}", self.title, self.seed, self.verdict().word()));
        for report in &self.reports {
            line(format!(
                "  {:<26} {:<9} seed {:<11} {:>7.1} s",
                report.scenario,
                report.verdict.word(),
                report.seed,
                report.seconds
            ));
            for reason in &report.reasons {
                line(format!("      {reason}"));
            }
        }
        let mut row = |name: &str, value: String| line(format!("  {name:<26} {value}"));
        if !self.not_run.is_empty() {
            row(&format!("NOT RUN ({})", self.not_run.len()), self.not_run.join(", "));
        }
        row("verdicts", listed(totals.verdicts.iter()));
        row("acknowledged writes", totals.acknowledged_writes.to_string());
        row("acknowledged reads", totals.acknowledged_reads.to_string());
        row("refused", totals.refused.to_string());
        row("unknown", totals.unknown.to_string());
        row("failed (never sent)", totals.failed.to_string());
        row("pulls of the last checks", totals.checked_pulls.to_string());
        row("operations on tags", totals.tag_operations.to_string());
        row("faults injected", totals.faults.values().sum::<u64>().to_string());
        row("by kind", listed(totals.faults.iter()));
        row("operations lost", totals.lost.to_string());
        row("wrong bytes", totals.wrong_bytes.to_string());
        row("violations", totals.violations.to_string());
        row("took", format!("{:.1} s", self.seconds));
        text
    }

    /// Writes the summary, the JUnit file and the page into a folder, where each report is already.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<Saved> {
        let file = |ending: &str| folder.join(format!("run-{}.{ending}", self.seed));
        let saved = Saved { json: file("json"), junit: file("xml"), html: file("html") };
        let runs = self.reports.iter().map(|report| Line {
            scenario: &report.scenario,
            seed: report.seed,
            length: &report.length,
            verdict: report.verdict,
            reasons: &report.reasons,
            seconds: report.seconds,
        });
        let summary = Summary {
            run: self,
            verdict: self.verdict(),
            totals: self.totals(),
            runs: runs.collect(),
        };
        write(&saved.json, &serde_json::to_string_pretty(&summary)?)?;
        write(&saved.junit, &junit::document(self)?)?;
        write(&saved.html, &html::page(self))?;
        Ok(saved)
    }
}

/// `a 1, b 2`.
pub(super) fn listed<K: std::fmt::Display, V: std::fmt::Display>(
    counts: impl Iterator<Item = (K, V)>,
) -> String {
    counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::report::sample;

    #[test]
    fn sums_are_over_all_scenarios() {
        let run = sample::run();
        let totals = run.totals();
        assert_eq!(totals.verdicts, BTreeMap::from([("held", 1), ("violated", 1), ("void", 1)]));
        assert_eq!(totals.violations, 2);
        assert_eq!(totals.faults["kill -9"], 2);
        assert_eq!(run.verdict(), Verdict::Violated);
        let table = run.table();
        assert!(table.contains("kill -9 2"), "{table}");
        assert!(table.contains("never happened"), "{table}");
        assert!(
            table.contains("NOT RUN (2)") && table.contains("lost-disk, member-churn"),
            "{table}"
        );
    }

    #[test]
    fn a_run_that_was_interrupted_did_not_hold() {
        let mut run = RunReport { reports: vec![sample::held()], ..RunReport::default() };
        assert_eq!(run.verdict(), Verdict::Held);
        run.interrupted = true;
        assert_eq!(run.verdict(), Verdict::Void);
    }

    #[test]
    fn all_files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let saved = sample::run().save(&folder.path().join("new")).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(saved.json).unwrap()).unwrap();
        assert_eq!(json["verdict"], "violated");
        assert_eq!(json["runs"].as_array().unwrap().len(), 3);
        assert_eq!(json["totals"]["violations"], 2);
        assert_eq!(json["not_run"], serde_json::json!(["lost-disk", "member-churn"]));
        assert!(saved.junit.is_file() && saved.html.is_file());
    }
}
