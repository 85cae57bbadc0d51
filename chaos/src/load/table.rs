//! A load's figures as lines of text.

use std::fmt::Write as _;

use super::{
    options::Workload,
    report::{Figures, LoadReport},
    tally::Quantiles,
};

const HEADINGS: [&str; 9] =
    ["target", "ops/s", "req/s", "MB/s", "p50", "p90", "p99", "p99.9", "max"];

impl LoadReport {
    /// The figures of every target; MB are 10⁶ bytes.
    pub fn table(&self) -> String {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        for figures in &self.targets {
            rows.push(row(&figures.target, figures));
            if self.workload == Workload::Mixed {
                rows.extend(kinds(figures));
            }
        }
        let mut text = align(&rows);
        for figures in &self.targets {
            for note in notes(figures) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}: {note}", figures.target);
            }
        }
        text
    }
}

fn row(name: &str, figures: &Figures) -> [String; 9] {
    let [p50, p90, p99, p99_9, max] = times(&figures.latency);
    [
        name.to_owned(),
        digits(figures.operations_per_second),
        digits(figures.requests_per_second),
        digits(figures.bytes_per_second / 1e6),
        p50,
        p90,
        p99,
        p99_9,
        max,
    ]
}

fn kinds(figures: &Figures) -> Vec<[String; 9]> {
    let row = |(kind, figures): (&String, &super::report::KindFigures)| {
        let [p50, p90, p99, p99_9, max] = times(&figures.latency);
        let (name, none) = (format!("  {kind}"), String::new());
        let operations = digits(figures.operations_per_second);
        [name, operations, none.clone(), none, p50, p90, p99, p99_9, max]
    };
    figures.kinds.iter().map(row).collect()
}

/// What does not fit the table.
fn notes(figures: &Figures) -> Vec<String> {
    let mut notes = Vec::new();
    if !figures.errors.is_empty() {
        let errors: Vec<String> =
            figures.errors.iter().map(|(why, count)| format!("{why} {count}")).collect();
        notes.push(format!("of {} operations failed: {}", figures.operations, errors.join(", ")));
    }
    if figures.unsent > 0 {
        notes.push(format!("did not keep up: {} operations were due and not sent", figures.unsent));
    }
    for storm in &figures.storms {
        notes.push(format!(
            "storm of {:.2} s, {} MB/s; median {:.2} s, the slowest client {:.2} times that",
            storm.seconds,
            digits(storm.bytes_per_second / 1e6),
            storm.median_seconds,
            storm.slowest_to_median
        ));
    }
    let cores = |seconds: f64| match figures.seconds > 0.0 {
        true => seconds / figures.seconds,
        false => 0.0,
    };
    let mut cpu = format!("cores used by the load {:.2}", cores(figures.client_cpu_seconds));
    if let Some(seconds) = figures.server_cpu_seconds {
        let _ = write!(cpu, ", by the servers {:.2}", cores(seconds));
    }
    if let Some(seconds) = figures.server_cpu_seconds_per_gigabyte {
        let _ = write!(cpu, " ({seconds:.2} s/GB)");
    }
    notes.push(cpu);
    notes
}

fn times(latency: &Quantiles) -> [String; 5] {
    let Quantiles { p50_us, p90_us, p99_us, p99_9_us, max_us, .. } = *latency;
    [p50_us, p90_us, p99_us, p99_9_us, max_us].map(time)
}

/// [`digits`] and a unit.
pub(crate) fn time(micros: u64) -> String {
    let value = micros as f64;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{} ms", digits(value / 1e3)),
        _ => format!("{} s", digits(value / 1e6)),
    }
}

/// Three digits that count, or more before the point.
pub(crate) fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// The first column to the left, the others to the right.
fn align(rows: &[[String; 9]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::tests::{measured, report},
        *,
    };

    #[test]
    fn times_and_rates_have_three_digits() {
        let times: Vec<String> =
            [7, 999, 1_234, 45_678, 999_999, 1_500_000, 61_000_000].map(time).to_vec();
        let wanted = ["7 us", "999 us", "1.23 ms", "45.7 ms", "1000 ms", "1.50 s", "61.0 s"];
        assert_eq!(times, wanted);
        assert_eq!([0.0, 9.5, 78_000.4].map(digits), ["0.00", "9.50", "78000"]);
    }

    #[test]
    fn a_table_has_a_line_for_each_target_and_says_what_went_wrong() {
        let table = report(&[measured(100, 2)]).table();
        let lines: Vec<&str> = table.lines().collect();
        let [head, row, errors, cores] = lines.as_slice() else { panic!("{table}") };
        assert!(head.starts_with("target") && head.ends_with("max"), "{head}");
        assert_eq!(head.chars().count(), row.chars().count());
        assert!(row.starts_with("127.0.0.1:5000") && row.contains("50.0"), "{row}");
        assert!(errors.ends_with("of 102 operations failed: status 503 2"), "{errors}");
        assert!(cores.contains("load 1.00, by the servers 0.50 (10.00 s/GB)"), "{cores}");
    }
}
