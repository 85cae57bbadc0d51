//! One run of a scenario as a process of its own, with a bug or without.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{
    planted,
    replica::tail,
    report::{Report, Verdict},
    stop::stop_both,
    tools::Tool,
    workload::Invariant,
};

/// Longer than any scenario takes in its short form, deadlines that a bug lets pass included, and the wait for its turn
/// beside other runs on the machine.
const RUN_MAX: Duration = Duration::from_secs(600);
/// How much of a run's output a failure shows.
const TAIL_LINES: usize = 40;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial<'a> {
    pub(super) scenario: &'a str,
    pub(super) seed: u64,
    /// The bug of all replicas.
    pub(super) bug: Option<&'a str>,
    /// The run ends when one of these is broken.
    pub(super) until: &'a [Invariant],
    /// Where its report and its output go.
    pub(super) folder: &'a Path,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Ended {
    /// Void if there was no verdict.
    pub(super) verdict: Verdict,
    /// Why it is not held.
    pub(super) reasons: Vec<String>,
    /// The broken promises, the first ones of each invariant.
    pub(super) violations: Vec<(String, String)>,
    pub(super) time: Duration,
    pub(super) output: PathBuf,
}

impl Trial<'_> {
    /// Runs it to its verdict, or until its time is over.
    pub(super) async fn run(&self) -> Result<Ended> {
        fs::create_dir_all(self.folder)
            .with_context(|| format!("make {}", self.folder.display()))?;
        let output = self.folder.join(format!("{}-{}.log", self.scenario, self.seed));
        let log = File::create(&output).with_context(|| format!("make {}", output.display()))?;
        let mut command = Command::new(Tool::find("setpriv")?.path());
        // Also when this process is killed and cannot stop it.
        command.args(["--pdeathsig", "TERM"]);
        command.arg(std::env::current_exe().context("find this program")?);
        command.args(["run", self.scenario, "--seed", &self.seed.to_string(), "--report"]);
        command.arg(self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        command.env_remove(planted::BUG).env_remove(planted::UNTIL);
        if let Some(bug) = self.bug {
            command.env(planted::BUG, bug);
        }
        if !self.until.is_empty() {
            let names: Vec<String> = self.until.iter().map(Invariant::to_string).collect();
            command.env(planted::UNTIL, names.join(","));
        }
        Report::forget(self.folder, self.scenario, self.seed)?;
        let start = Instant::now();
        let mut child = command.spawn().context("start tercet-chaos")?;
        let ended = tokio::time::timeout(RUN_MAX, child.wait()).await;
        let time = start.elapsed();
        let Ok(status) = ended else {
            stop_both(&mut child).await?;
            return Ok(Ended {
                verdict: Verdict::Void,
                reasons: vec![format!("no verdict within {RUN_MAX:?}")],
                violations: Vec::new(),
                time,
                output,
            });
        };
        let status = status.context("wait for tercet-chaos")?;
        let report = Report::of_process(self.folder, self.scenario, self.seed, status);
        let report =
            report.with_context(|| format!("run {}; see {}", self.scenario, output.display()))?;
        let violations = report.invariants.into_iter().flat_map(|judged| {
            judged.violations.into_iter().map(move |what| (judged.invariant.clone(), what))
        });
        Ok(Ended {
            verdict: report.verdict,
            reasons: report.reasons,
            violations: violations.collect(),
            time,
            output,
        })
    }
}

impl Ended {
    /// The first violation of one of these invariants, in this order.
    pub(super) fn broke(&self, expected: &[Invariant]) -> Option<(Invariant, &str)> {
        expected.iter().find_map(|invariant| {
            let of = |(name, _): &&(String, String)| *name == invariant.to_string();
            self.violations.iter().find(of).map(|(_, what)| (*invariant, what.as_str()))
        })
    }

    /// The end of what the run wrote.
    pub(super) fn tail(&self) -> String {
        tail(&fs::read_to_string(&self.output).unwrap_or_default(), TAIL_LINES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_invariants_count() {
        let violation = |invariant: &str, what: &str| (invariant.to_owned(), what.to_owned());
        let ended = Ended {
            verdict: Verdict::Violated,
            reasons: Vec::new(),
            violations: vec![
                violation("I10", "counted"),
                violation("I3", "old"),
                violation("I3", "older"),
            ],
            time: Duration::ZERO,
            output: PathBuf::new(),
        };
        assert_eq!(ended.broke(&[Invariant::I1, Invariant::I3]), Some((Invariant::I3, "old")));
        assert_eq!(ended.broke(&[Invariant::I1]), None);
    }
}
