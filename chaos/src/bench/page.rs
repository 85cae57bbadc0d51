//! The page of a suite: everything that a run has found, so that anybody can make the same run.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    machine::{Machine, Version},
    outcome::{Outcome, Table},
    suite::Suite,
    target::Judged,
};
use crate::report::Verdict;

/// A run of the benchmarks, as far as it has come.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    #[serde(skip)]
    pub(super) suite: Suite,
    pub(super) machine: Machine,
    pub(super) versions: Vec<Version>,
    /// What started it.
    pub(super) command: String,
    pub(super) commit: Option<String>,
    /// When it began, in seconds since 1970.
    pub(super) started_unix_s: u64,
    /// Whether everything had the size that the targets speak of.
    pub(super) whole: bool,
    /// Whether no row was left out.
    pub(super) of_all_rows: bool,
    #[serde(skip)]
    pub(super) outcomes: Vec<Outcome>,
}

impl Run {
    /// Void if a row could not be measured or a target was not judged; else as the targets are met.
    pub(super) fn verdict(&self) -> Verdict {
        let rows = self.outcomes.iter().map(|outcome| {
            let judged: Option<Vec<bool>> =
                outcome.targets.iter().map(|judged| judged.met).collect();
            match (&outcome.failed, judged) {
                (None, Some(all)) if all.iter().all(|met| *met) => Verdict::Held,
                (None, Some(_)) => Verdict::Violated,
                _ => Verdict::Void,
            }
        });
        Verdict::of_all(rows)
    }

    /// See [`Suite::name`].
    pub(super) fn name(&self) -> &'static str {
        self.suite.name(self.of_all_rows && self.whole)
    }

    /// Writes the page as far as it has come, and the run's own figures beside those of the rows.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(super) fn save(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write(&format!("{}/run.json", self.name()), serde_json::to_string_pretty(self)? + "\n")?;
        write(&format!("{}.md", self.name()), self.page()?)
    }

    fn page(&self) -> Result<String> {
        let (make, heading) = (self.suite.make(), self.suite.heading());
        let mut text = format!("<!-- Written by `{make}`. -->\n# {heading}\n\n");
        writeln!(text, "{}\n", self.introduction())?;
        self.machine(&mut text)?;
        if self.outcomes.iter().any(|outcome| !outcome.targets.is_empty()) {
            self.summary(&mut text)?;
        }
        for outcome in &self.outcomes {
            row(&mut text, outcome, self.name())?;
        }
        Ok(text)
    }

    fn introduction(&self) -> String {
        let size = match self.whole {
            true if self.outcomes.len() < self.suite.rows().len() => {
                " This run was of some rows only."
            }
            true => "",
            false => {
                " Everything is as small as it can be: this run shows that the benchmarks work, and nothing more."
            }
        };
        let commit = match &self.commit {
            Some(commit) => format!(" Measured is commit `{commit}`."),
            None => String::new(),
        };
        format!(
            "{}{size}\n\n\
             This run was `{}`, on {}.{commit} The load is [`tercet-chaos load`](load.md), which has cores in common with \
             what it measures. The figures of every round are in the JSON of each row.",
            self.suite.introduction(),
            self.command,
            date(self.started_unix_s)
        )
    }

    fn machine(&self, text: &mut String) -> Result<()> {
        let machine = &self.machine;
        let guest = if machine.guest { ", a virtual machine" } else { "" };
        writeln!(text, "## Machine and versions\n\n| | |\n|---|---|")?;
        writeln!(text, "| processor | {}, {} cores{guest} |", machine.processor, machine.cores)?;
        writeln!(text, "| memory | {:.0} GiB |", machine.memory_gib)?;
        writeln!(text, "| system | {}, Linux {} |", machine.system, machine.kernel)?;
        writeln!(
            text,
            "| disk | {}; 4 KiB are written and synced in {:.2} ms (median), {:.2} ms (99 of 100) |",
            machine.file_system, machine.sync_p50_ms, machine.sync_p99_ms
        )?;
        for version in &self.versions {
            writeln!(text, "| {} | {} |", version.name, version.version)?;
        }
        text.push('\n');
        if machine.was_busy() {
            writeln!(
                text,
                "The machine had other work when the run began ({:.1} cores were in use).\n",
                machine.busy_cores
            )?;
        }
        Ok(())
    }

    fn summary(&self, text: &mut String) -> Result<()> {
        writeln!(
            text,
            "## Targets\n\n| work | what | target | measured | |\n|---|---|---|---|---|"
        )?;
        for outcome in &self.outcomes {
            let title = format!("[{}](#{})", outcome.title, anchor(outcome.title));
            for judged in &outcome.targets {
                let Judged { words, wanted, .. } = judged;
                let shown = judged.shown.as_deref().unwrap_or("–");
                let failed = if outcome.failed.is_some() { ", but the row has failed" } else { "" };
                writeln!(
                    text,
                    "| {title} | {words} | {wanted} | {shown} | {}{failed} |",
                    judged.word()
                )?;
            }
        }
        text.push('\n');
        Ok(())
    }
}

fn row(text: &mut String, outcome: &Outcome, folder: &str) -> Result<()> {
    writeln!(text, "## {}\n\n{}\n", outcome.title, outcome.words)?;
    if let Some(reason) = &outcome.failed {
        writeln!(text, "This was not measured to its end:\n\n```text\n{}\n```\n", reason.trim())?;
    }
    for picture in outcome.pictures() {
        writeln!(text, "![{}]({folder}/{})\n", picture.title, picture.file)?;
    }
    for table in &outcome.tables {
        show(text, table)?;
    }
    for note in &outcome.notes {
        writeln!(text, "{note}\n")?;
    }
    if let Some(stolen) = outcome.stolen.filter(|stolen| *stolen > 0.01) {
        writeln!(
            text,
            "The machine's host gave {:.0} % of its time to others meanwhile.\n",
            stolen * 100.0
        )?;
    }
    if !outcome.commands.is_empty() || !outcome.setups.is_empty() {
        writeln!(text, "<details><summary>Commands and configuration</summary>\n")?;
        if !outcome.commands.is_empty() {
            text.push_str("```console\n");
            for command in &outcome.commands {
                writeln!(text, "$ {command}")?;
            }
            text.push_str("```\n\n");
        }
        for setup in &outcome.setups {
            writeln!(
                text,
                "{}: `{}`\n\n```\n{}\n```\n",
                setup.name,
                setup.command,
                setup.config.trim()
            )?;
        }
        text.push_str("</details>\n\n");
    }
    writeln!(
        text,
        "Figures: [`{file}.json`]({folder}/{file}.json), {:.0} s.\n",
        outcome.seconds,
        file = outcome.file()
    )?;
    Ok(())
}

fn show(text: &mut String, table: &Table) -> Result<()> {
    writeln!(text, "| {} |", table.headings.join(" | "))?;
    writeln!(text, "|{}", "---|".repeat(table.headings.len()))?;
    for line in &table.lines {
        writeln!(text, "| {} |", line.join(" | "))?;
    }
    text.push('\n');
    Ok(())
}

/// How the book calls a heading in links.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|letter| letter.is_alphanumeric() || *letter == ' ');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The day, of seconds since 1970 (the civil calendar from a count of days, as in Hinnant's `civil_from_days`).
fn date(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{options::tests::options, rows::chosen},
        *,
    };

    fn run(judged: &[(&str, f64)]) -> Run {
        let row = chosen(Suite::Peers, &["start".to_owned()]).unwrap().remove(0);
        let mut outcome = Outcome::new(row, true);
        for (key, measured) in judged {
            outcome.judge(key, &[*measured]).unwrap();
        }
        Run {
            suite: Suite::Peers,
            machine: Machine { processor: "Some CPU".to_owned(), cores: 2, ..Machine::default() },
            versions: vec![Version { name: "nginx".to_owned(), version: "1.22".to_owned() }],
            command: options().command(),
            commit: options().commit,
            started_unix_s: 1_795_392_000,
            whole: true,
            of_all_rows: true,
            outcomes: vec![outcome],
        }
    }

    #[test]
    fn the_page_says_what_was_measured_on_what_and_whether_it_is_enough() {
        let page = run(&[("ready", 400.0)]).page().unwrap();
        for part in ["Some CPU", "| nginx | 1.22 |", "2026-11-23", "0123456789ab", "## Cold start"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(page.contains("≤ 300 ms | 400 ms | **missed**"), "{page}");
        assert!(page.contains("[Cold start](#cold-start)"));
    }

    #[test]
    fn a_run_is_as_good_as_its_rows() {
        assert_eq!(run(&[("ready", 200.0)]).verdict(), Verdict::Held);
        assert_eq!(run(&[("ready", 400.0)]).verdict(), Verdict::Violated);
        assert_eq!(run(&[]).verdict(), Verdict::Void);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_392_000), "2026-11-23");
    }

    #[test]
    fn files_are_written_where_the_page_looks_for_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("benchmarks")).unwrap();
        let run = run(&[("ready", 200.0)]);
        run.save(folder.path()).unwrap();
        run.outcomes.iter().for_each(|one| one.save(&folder.path().join("benchmarks")).unwrap());
        let page = fs::read_to_string(folder.path().join("benchmarks.md")).unwrap();
        assert!(page.contains("(benchmarks/11-start.json)"));
        assert!(folder.path().join("benchmarks/11-start.json").is_file());
        assert!(folder.path().join("benchmarks/run.json").is_file());
    }
}
