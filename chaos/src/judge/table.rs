//! The cases as a table: for people, and as JSON.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::case::{Case, Outcome};

/// All cases of one judgement.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// The seed that the first try of each case had.
    pub seed: u64,
    /// In the order in which they were judged.
    pub cases: Vec<Case>,
}

impl Table {
    /// Whether every bug was caught, and every scenario holds without it.
    pub fn all_caught(&self) -> bool {
        self.cases.iter().all(Case::is_caught)
    }

    /// As a Markdown table.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| mutation | scenario | caught by | runs | time to catch | seed | without the bug |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for case in &self.cases {
            let (caught, control) = match &case.outcome {
                Outcome::Caught { by, .. } => {
                    (by.as_str(), case.control_ms.map_or_else(|| "not run".to_owned(), held))
                }
                Outcome::Missed { .. } => ("**missed**", "not run".to_owned()),
                Outcome::Unsound { .. } => ("**unsound**", "**does not hold**".to_owned()),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {caught} | {} | {} | {} | {control} |",
                case.bug,
                case.scenario,
                case.tries,
                seconds(case.catch_ms),
                case.seed,
            );
        }
        text
    }

    /// Writes `judge-<seed>.json` and `judge-<seed>.md` into a folder. Returns the path of the latter.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let path = |ending| folder.join(format!("judge-{}.{ending}", self.seed));
        let write = |path: &Path, text: String| {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))
        };
        write(&path("json"), serde_json::to_string_pretty(self)?)?;
        write(&path("md"), self.markdown())?;
        Ok(path("md"))
    }
}

fn held(milliseconds: u64) -> String {
    format!("held ({})", seconds(milliseconds))
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(outcome: Outcome, control_ms: Option<u64>) -> Case {
        Case {
            bug: "skip-fsync".to_owned(),
            breaks: "nothing".to_owned(),
            scenario: "power-loss".to_owned(),
            seed: 7,
            tries: 2,
            catch_ms: 12_340,
            control_ms,
            outcome,
        }
    }

    #[test]
    fn one_that_is_missed_or_does_not_hold_without_the_bug_spoils_all() {
        let caught = Outcome::Caught { by: "I1".to_owned(), what: "gone".to_owned() };
        let missed = Outcome::Missed { said: vec!["held".to_owned()] };
        let unsound = Outcome::Unsound { reasons: Vec::new() };
        let good = Table { seed: 7, cases: vec![case(caught.clone(), Some(20_000))] };
        assert!(good.all_caught());
        assert!(
            good.markdown().ends_with(
                "| `skip-fsync` | `power-loss` | I1 | 2 | 12.3 s | 7 | held (20.0 s) |\n"
            )
        );
        for bad in [missed, unsound] {
            let cases = vec![case(caught.clone(), None), case(bad, Some(1))];
            assert!(!Table { seed: 7, cases }.all_caught());
        }
    }

    #[test]
    fn the_outcome_is_a_field_of_the_case() {
        let missed = Outcome::Missed { said: vec!["held".to_owned()] };
        let json = serde_json::to_value(case(missed, None)).unwrap_or_default();
        assert_eq!(json.pointer("/outcome"), Some(&"missed".into()));
        assert_eq!(json.pointer("/said/0"), Some(&"held".into()));
        assert_eq!(json.pointer("/tries"), Some(&2.into()));
    }
}
