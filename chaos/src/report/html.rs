//! One page for a call of the program: no script, nothing from elsewhere, readable in light and in dark.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::{
    Report, RunReport, Verdict,
    picture::{clock, colour, kinds, picture},
    run_report::listed,
};
use crate::timeline::{Latency, Timeline};

const STYLE: &str = include_str!("page.css");

/// The page. All that registries, systems and people have said is escaped.
pub(super) fn page(run: &RunReport) -> String {
    let title = format!("{}: {}", run.title, run.verdict().word());
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "tercet-chaos " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(run))
                (summary(run))
                @for (number, report) in run.reports.iter().enumerate() { (section(number, report)) }
            }
        }
    };
    markup.into_string()
}

fn head(run: &RunReport) -> Markup {
    let seconds = run.seconds.max(0.0) as u64;
    html! {
        h1 { "tercet-chaos " (run.title) " " (pill(run.verdict())) }
        p.soft {
            "seed " code { (run.seed) } " · " (run.version)
            @if let Some(commit) = &run.commit { " · commit " code { (commit) } }
            " · began " (date(run.started_unix_s)) " · took " (clock(seconds * 1_000))
            @if run.interrupted { " · interrupted" }
        }
        @if !run.not_run.is_empty() {
            p { "Not run (" (run.not_run.len()) "): " (run.not_run.join(", ")) }
        }
    }
}

fn summary(run: &RunReport) -> Markup {
    let totals = run.totals();
    let facts = [
        ("scenarios", listed(totals.verdicts.iter())),
        ("acknowledged writes", totals.acknowledged_writes.to_string()),
        ("acknowledged reads", totals.acknowledged_reads.to_string()),
        (
            "refused, unknown, never sent",
            format!("{}, {}, {}", totals.refused, totals.unknown, totals.failed),
        ),
        ("pulls of the last checks", totals.checked_pulls.to_string()),
        ("operations on tags, checked", totals.tag_operations.to_string()),
        ("faults", listed(totals.faults.iter())),
        ("operations lost, wrong bytes", format!("{}, {}", totals.lost, totals.wrong_bytes)),
        ("violations", totals.violations.to_string()),
    ];
    html! {
        (table(&facts))
        @if run.reports.len() > 1 {
            div.wide { table {
                tr {
                    th { "scenario" } th { "verdict" } th.number { "seed" } th.number { "writes" }
                    th.number { "reads" } th.number { "longest pause" } th { "faults" } th.number { "took" }
                }
                @for (number, report) in run.reports.iter().enumerate() {
                    tr {
                        td { a href=(format!("#run-{number}")) { (report.scenario) } }
                        td { (pill(report.verdict)) }
                        td.number { (report.seed) }
                        td.number { (report.operations.acknowledged_writes) }
                        td.number { (report.operations.acknowledged_reads) }
                        td.number { (report.longest_pause_ms) " ms" }
                        td { (listed(report.faults.iter())) }
                        td.number { (format!("{:.1} s", report.seconds)) }
                    }
                }
            } }
        }
    }
}

fn section(number: usize, report: &Report) -> Markup {
    let rows = report.rows.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
    html! {
        section id=(format!("run-{number}")) {
            h2 { (report.scenario) " " (pill(report.verdict)) }
            p { (report.hypothesis) }
            @if !report.fault.is_empty() { p.soft { "Fault: " (report.fault) } }
            p.soft {
                "seed " code { (report.seed) } " · " (report.length) " · " (report.version)
                @if !rows.is_empty() { " · rows " (rows) }
                " · again: " code { (report.command()) }
            }
            @if !report.reasons.is_empty() {
                div class=(format!("reasons {}", report.verdict.word())) {
                    @for reason in &report.reasons { p { (reason) } }
                }
            }
            (timeline(report))
            (invariants(report))
            (latencies(&report.timeline))
            (figures(report))
            @if !report.events.is_empty() {
                details {
                    summary { "Events (" (report.events.len()) ")" }
                    pre { (report.events.join("\n")) }
                }
            }
        }
    }
}

fn timeline(report: &Report) -> Markup {
    let Some(picture) = picture(&report.timeline, report.verdict) else {
        return html! { p.soft { "Nothing was recorded." } };
    };
    html! {
        div.wide { (picture) }
        div.legend {
            @for outcome in ["acknowledged", "refused", "unknown", "failed"] {
                span { span class=(format!("swatch {outcome}")) {} (outcome) " requests" }
            }
            span { span.swatch.p50 {} "p50" }
            span { span.swatch.p99 {} "p99 latency of acknowledged requests (log scale)" }
            span { span.swatch.gap {} "no acknowledged write for more than 1 s" }
            span { span.swatch.violation {} "violation" }
            span { "dashed: another leader" }
        }
        div.legend {
            @for (index, kind) in kinds(&report.timeline).iter().enumerate() {
                span {
                    span class=(format!("swatch {}", colour(index))) {}
                    (kind) " × " (report.faults.get(*kind).copied().unwrap_or_default())
                }
            }
        }
    }
}

fn invariants(report: &Report) -> Markup {
    if report.invariants.is_empty() {
        return html! {};
    }
    html! {
        h3 { "Invariants" }
        table {
            @for judged in &report.invariants {
                tr {
                    td { (judged.invariant) }
                    td { (pill(judged.verdict)) }
                    td {
                        (judged.words)
                        @for violation in &judged.violations { div.reasons { (violation) } }
                    }
                }
            }
        }
    }
}

fn latencies(timeline: &Timeline) -> Markup {
    let all: Vec<(&str, &Latency)> = timeline
        .tracks
        .iter()
        .flat_map(|track| track.latencies.iter().map(|latency| (track.name.as_str(), latency)))
        .collect();
    if all.is_empty() {
        return html! {};
    }
    html! {
        details {
            summary { "Latencies of acknowledged requests" }
            table {
                tr {
                    th { "replica" } th { "request" } th.number { "count" } th.number { "p50" }
                    th.number { "p99" } th.number { "max" }
                }
                @for (replica, latency) in all {
                    tr {
                        td { (replica) }
                        td { (latency.operation.words()) }
                        td.number { (latency.count) }
                        td.number { (milliseconds(latency.p50_us)) }
                        td.number { (milliseconds(latency.p99_us)) }
                        td.number { (milliseconds(latency.max_us)) }
                    }
                }
            }
        }
    }
}

fn figures(report: &Report) -> Markup {
    let counts = &report.operations;
    let replicated = report.full_replication_ms.map(|time| format!("{time} ms"));
    let mut facts = vec![
        (
            "acknowledged writes, reads",
            format!("{}, {}", counts.acknowledged_writes, counts.acknowledged_reads),
        ),
        ("acknowledged per second", format!("{:.1}", report.acknowledged_per_second)),
        (
            "refused, unknown, never sent",
            format!("{}, {}, {}", counts.refused, counts.unknown, counts.failed),
        ),
        ("stale reads, said so", counts.stale_reads.to_string()),
        ("failed pulls", counts.failed_pulls.to_string()),
        ("operations lost, wrong bytes", format!("{}, {}", counts.lost, counts.wrong_bytes)),
        (
            "tags checked",
            format!("{}, of {} operations", report.tags_checked, report.tag_operations),
        ),
        ("pulls of the last check", report.checked_pulls.to_string()),
        ("full replication after", replicated.unwrap_or_else(|| "not measured".to_owned())),
        ("longest pause of writes", format!("{} ms", report.longest_pause_ms)),
    ];
    if !report.resumed_ms.is_empty() {
        facts.push(("writes resumed after", super::quantiles(&report.resumed_ms)));
    }
    for (name, value) in &report.figures {
        facts.push((name, value.as_str().map_or_else(|| Value::to_string(value), str::to_owned)));
    }
    html! { h3 { "Figures" } (table(&facts)) }
}

fn table(facts: &[(&str, String)]) -> Markup {
    html! {
        table {
            @for (name, value) in facts {
                tr { th { (name) } td { (value) } }
            }
        }
    }
}

fn pill(verdict: Verdict) -> Markup {
    html! { span class=(format!("pill {}", verdict.word())) { (verdict.word()) } }
}

fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1_000.0)
}

/// `2026-11-22 15:04 UTC`.
fn date(unix_s: u64) -> String {
    let (mut days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (seconds / 3_600, seconds / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Every element that is opened is closed, in order; the few that have no end are known.
    fn well_formed(page: &str) -> Result<(), String> {
        const WITHOUT_END: [&str; 1] = ["meta"];
        let mut open: Vec<String> = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no document type")?;
        while let Some(start) = rest.find('<') {
            let after = rest.get(start + 1..).unwrap_or_default();
            // Maud escapes `>` in attributes too.
            let end = after.find('>').ok_or("a tag without an end")?;
            let tag = after.get(..end).unwrap_or_default();
            rest = after.get(end + 1..).unwrap_or_default();
            if let Some(name) = tag.strip_prefix('/') {
                let last = open.pop();
                if last.as_deref() != Some(name) {
                    return Err(format!("</{name}> ends {last:?}"));
                }
            } else {
                let name = tag.split_whitespace().next().unwrap_or_default().to_owned();
                if tag.matches('"').count() % 2 != 0 {
                    return Err(format!("an attribute without an end: {tag}"));
                }
                if !WITHOUT_END.contains(&name.as_str()) {
                    open.push(name);
                }
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("never ended: {open:?}")) }
    }

    #[test]
    fn the_page_is_well_formed_and_the_same_for_the_same_report() {
        let run = sample::run();
        let page = page(&run);
        assert_eq!(well_formed(&page), Ok(()));
        assert_eq!(page, super::page(&run));
        let empty = super::page(&RunReport::default());
        assert_eq!(well_formed(&empty), Ok(()));
    }

    #[test]
    fn everything_a_reader_asks_for_is_there() {
        let page = page(&sample::run());
        for words in [
            "kill -9",
            "slow fsync",
            "damage",
            "replica-1",
            "replica-3",
            "held",
            "void",
            "never happened",
            "Not run (2): lost-disk, member-churn",
            "tercet-chaos run bit-rot --seed 9 --full",
            "push blob",
            "0123456789ab",
            "2027-01-15 08:00 UTC",
        ] {
            assert!(page.contains(words), "{words}");
        }
    }

    #[test]
    fn what_others_have_said_is_escaped_and_nothing_is_fetched() {
        let page = page(&sample::run());
        assert!(!page.contains("<script"), "words of a registry run in the reader's browser");
        assert!(page.contains("&lt;script&gt;"));
        for outside in ["src=", "@import", "url(", "href=\"http"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn dates_are_right_in_leap_years_too() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(date(1_767_225_599), "2025-12-31 23:59 UTC");
    }
}
