//! JUnit XML: one suite for a call of the program, one case for a scenario and one for each of its invariants.

use std::time::Duration;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::{Report, RunReport, Verdict};

/// The document. What is void is an error, with the reason: it must not look green.
pub(super) fn document(run: &RunReport) -> Result<String> {
    let mut document = Document::new("tercet-chaos");
    document.set_time(seconds(run.seconds));
    let mut suite = TestSuite::new(run.title.as_str());
    suite.set_time(seconds(run.seconds));
    let seed = run.seed.to_string();
    suite.add_property(("seed", seed.as_str()));
    suite.add_property(("version", run.version.as_str()));
    if let Some(commit) = &run.commit {
        suite.add_property(("commit", commit.as_str()));
    }
    for report in &run.reports {
        suite.add_test_case(scenario(report));
        for judged in &report.invariants {
            let name = format!("{} {}: {}", report.scenario, judged.invariant, judged.words);
            let why =
                if judged.violations.is_empty() { &report.reasons } else { &judged.violations };
            let mut case = TestCase::new(name, status(judged.verdict, why));
            case.set_classname(class(report));
            suite.add_test_case(case);
        }
    }
    for name in &run.not_run {
        suite.add_test_case(TestCase::new(name.as_str(), TestCaseStatus::skipped()));
    }
    document.add_test_suite(suite);
    document.to_string().context("write JUnit XML")
}

fn scenario(report: &Report) -> TestCase {
    let mut case = TestCase::new(report.scenario.as_str(), status(report.verdict, &report.reasons));
    case.set_classname(class(report));
    case.set_time(seconds(report.seconds));
    let faults = super::run_report::listed(report.faults.iter());
    for (name, value) in [
        ("seed", report.seed.to_string()),
        ("length", report.length.clone()),
        ("version", report.version.clone()),
        ("faults", faults),
        ("again", report.command()),
    ] {
        case.add_property((name, value.as_str()));
    }
    case.set_system_out(report.events.join("\n"));
    case
}

fn class(report: &Report) -> String {
    format!("chaos.{}-{}", report.scenario, report.seed)
}

fn status(verdict: Verdict, reasons: &[String]) -> TestCaseStatus {
    let kind = match verdict {
        Verdict::Held => return TestCaseStatus::success(),
        Verdict::Violated => NonSuccessKind::Failure,
        Verdict::Void => NonSuccessKind::Error,
    };
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(verdict.word());
    status.set_message(reasons.first().map_or(verdict.word(), String::as_str));
    status.set_description(reasons.join("\n"));
    status
}

/// A time that can be written, whatever a file said.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_violation_is_a_failure_and_a_void_run_an_error() {
        let run = sample::run();
        let text = document(&run).unwrap();
        let read = Document::deserialize_from_str(&text).unwrap();
        let suite = &read.test_suites[0];
        let cases: usize = run.reports.iter().map(|report| 1 + report.invariants.len()).sum();
        assert_eq!((suite.tests, suite.failures), (cases + run.not_run.len(), 2), "{text}");
        assert!(suite.errors >= 1);
        assert!(text.contains("&lt;script&gt;"), "what a registry says is escaped: {text}");
        assert!(text.contains("tercet-chaos run kill-minority --seed 7"));
        assert_eq!(document(&run).unwrap(), text, "the same report, the same file");
    }
}
