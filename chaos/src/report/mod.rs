//! What runs came to: as a table, as JSON, as JUnit XML and as a page with pictures.

mod html;
mod junit;
mod picture;
mod run_report;
mod table;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use run_report::{RunReport, Saved, Totals};
pub(crate) use table::quantiles;

use crate::{
    timeline::Timeline,
    workload::{Counts, Invariant},
};

/// The judgement of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every invariant held, and the faults were real.
    Held,
    /// An invariant was broken, or the cluster did not do what the scenario asks of it.
    Violated,
    /// The run shows nothing: a fault never happened, or hardly any work did.
    #[default]
    Void,
}

impl Verdict {
    /// Its word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Violated => "violated",
            Self::Void => "void",
        }
    }

    /// What a program that has come to it exits with.
    pub fn code(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Violated => 1,
            Self::Void => 2,
        }
    }

    /// The judgement over many: one that is violated counts most, then one that shows nothing. Of none at all: void.
    pub fn of_all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = None;
        for verdict in verdicts {
            all = Some(match (all, verdict) {
                (Some(Self::Violated), _) | (_, Self::Violated) => Self::Violated,
                (Some(Self::Void), _) | (_, Self::Void) => Self::Void,
                _ => Self::Held,
            });
        }
        all.unwrap_or_default()
    }
}

/// One invariant in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judged {
    /// `I1` … `I10`.
    pub invariant: String,
    /// It in words.
    pub words: String,
    /// The judgement.
    pub verdict: Verdict,
    /// The first violations, in words.
    pub violations: Vec<String>,
}

/// Everything that is worth keeping of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Its rows in the catalogue of faults.
    pub rows: Vec<u8>,
    /// What is expected, in a sentence.
    pub hypothesis: String,
    /// What is done to the cluster.
    pub fault: String,
    /// What all random choices were drawn from.
    pub seed: u64,
    /// `short` or `full`.
    pub length: String,
    /// What the program under test says it is.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub started_unix_s: u64,
    /// The judgement.
    pub verdict: Verdict,
    /// Why, if it is not `held`.
    pub reasons: Vec<String>,
    /// The judgement of each invariant.
    pub invariants: Vec<Judged>,
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
    /// What happened when, and how long requests took.
    pub timeline: Timeline,
    /// From start to verdict.
    pub seconds: f64,
}

impl Report {
    /// Where [`Self::save`] puts it: `<scenario>-<seed>.json`.
    pub fn path(folder: &Path, scenario: &str, seed: u64) -> PathBuf {
        folder.join(format!("{scenario}-{seed}.json"))
    }

    /// Writes the report into a folder.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        let path = Self::path(folder, &self.scenario, self.seed);
        write(&path, &serde_json::to_string_pretty(self)?)?;
        Ok(path)
    }

    /// Reads what [`Self::save`] has written.
    ///
    /// # Errors
    /// If there is no such file, or it is no report.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Removes the report of an earlier run, so that it is not taken for that of the one to come.
    ///
    /// # Errors
    /// If there is one, and it cannot be removed.
    pub fn forget(folder: &Path, scenario: &str, seed: u64) -> Result<()> {
        let path = Self::path(folder, scenario, seed);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Reads what the process of a run has left, which has ended like this.
    ///
    /// # Errors
    /// If that is no report, or another run's, or does not say what the process has ended with: other programs that
    /// start it may fail with the same codes.
    pub fn of_process(
        folder: &Path,
        scenario: &str,
        seed: u64,
        status: ExitStatus,
    ) -> Result<Self> {
        let report = Self::load(&Self::path(folder, scenario, seed))
            .with_context(|| format!("its process ended with {status}"))?;
        ensure!(
            report.scenario == scenario && report.seed == seed,
            "the report is of {} with seed {}",
            report.scenario,
            report.seed
        );
        let said = report.verdict;
        ensure!(
            status.code() == Some(said.code().into()),
            "its process ended with {status}, and its report says {}",
            said.word()
        );
        Ok(report)
    }

    /// What runs it again.
    pub fn command(&self) -> String {
        let full = if self.length == "full" { " --full" } else { "" };
        format!("tercet-chaos run {} --seed {}{full}", self.scenario, self.seed)
    }
}

/// The judgement of each of these invariants, and of any other that was broken.
pub(crate) fn judge(
    invariants: &[Invariant],
    violations: &[(Invariant, String)],
    verdict: Verdict,
) -> Vec<Judged> {
    let mut all: BTreeMap<Invariant, Vec<String>> =
        invariants.iter().map(|invariant| (*invariant, Vec::new())).collect();
    for (invariant, what) in violations {
        all.entry(*invariant).or_default().push(what.clone());
    }
    let judged = all.into_iter().map(|(invariant, violations)| Judged {
        invariant: invariant.to_string(),
        words: invariant.words().to_owned(),
        verdict: match verdict {
            _ if !violations.is_empty() => Verdict::Violated,
            // Nothing was shown about the others either if the run broke off before the last checks.
            Verdict::Held => Verdict::Held,
            Verdict::Violated | Verdict::Void => Verdict::Void,
        },
        violations,
    });
    judged.collect()
}

/// The reason for a broken promise, in words.
pub(crate) fn reason(invariant: Invariant, what: &str) -> String {
    format!("{invariant} ({}): {what}", invariant.words())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_worst_verdict_counts() {
        use Verdict::{Held, Violated, Void};
        assert_eq!(Verdict::of_all([Held, Void, Violated, Held]), Violated);
        assert_eq!(Verdict::of_all([Held, Void, Held]), Void);
        assert_eq!(Verdict::of_all([Held, Held]), Held);
        assert_eq!(Verdict::of_all([]), Void);
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let report = sample::violated();
        let path = report.save(folder.path()).unwrap();
        assert_eq!(path, Report::path(folder.path(), &report.scenario, report.seed));
        assert_eq!(Report::load(&path).unwrap(), report);
        assert!(Report::load(&folder.path().join("none")).is_err());
    }

    #[test]
    fn only_the_report_of_the_process_itself_counts() {
        use std::os::unix::process::ExitStatusExt as _;

        let folder = tempfile::tempdir().unwrap();
        let report = sample::violated();
        let read = |code: i32| {
            let status = ExitStatus::from_raw(code << 8);
            Report::of_process(folder.path(), &report.scenario, report.seed, status)
        };
        assert!(read(1).is_err(), "there is none");
        report.save(folder.path()).unwrap();
        assert_eq!(read(1).unwrap(), report);
        for other in [0, 2, 70] {
            assert!(read(other).is_err(), "{other}");
        }
        let path = Report::path(folder.path(), &report.scenario, report.seed + 1);
        fs::write(&path, serde_json::to_string(&report).unwrap()).unwrap();
        let status = ExitStatus::from_raw(1 << 8);
        let other = report.seed + 1;
        assert!(Report::of_process(folder.path(), &report.scenario, other, status).is_err());
        Report::forget(folder.path(), &report.scenario, report.seed).unwrap();
        Report::forget(folder.path(), &report.scenario, report.seed).unwrap();
        assert!(read(1).is_err(), "it is removed");
    }

    #[test]
    fn one_broken_invariant_does_not_judge_the_others() {
        let violations = [(Invariant::I3, "old".to_owned()), (Invariant::I7, "500".to_owned())];
        let judged = judge(&[Invariant::I1, Invariant::I3], &violations, Verdict::Violated);
        let seen: Vec<(&str, Verdict)> =
            judged.iter().map(|judged| (judged.invariant.as_str(), judged.verdict)).collect();
        let wanted = [("I1", Verdict::Void), ("I3", Verdict::Violated), ("I7", Verdict::Violated)];
        assert_eq!(seen, wanted);
    }
}
