//! The comparisons, one file to a kind of work.

mod failover;
mod manifests;
mod memory;
mod pulls;
mod pushes;
mod scale;
mod start;
mod storm;
mod tags;

use anyhow::{Result, anyhow};

use super::{row::Row, suite::Suite};
use crate::load::Figures;
pub(super) use memory::resident;
pub(super) use start::ready;

/// In the order of the page.
pub(super) static ROWS: [&Row; 11] = [
    &pulls::PLAIN,
    &pulls::TLS,
    &manifests::ROW,
    &pushes::LARGE,
    &pushes::SMALL,
    &tags::ROW,
    &memory::ROW,
    &scale::ROW,
    &storm::ROW,
    &failover::ROW,
    &start::ROW,
];

/// The rows of these numbers or names; without any, all.
///
/// # Errors
/// If there is no such row.
pub(super) fn chosen(suite: Suite, names: &[String]) -> Result<Vec<&'static Row>> {
    let rows = suite.rows();
    let unknown = |name: &String| {
        let all: Vec<String> =
            rows.iter().map(|row| format!("{} ({})", row.number, row.name)).collect();
        anyhow!("there is no row {name}: there are {}", all.join(", "))
    };
    for name in names {
        rows.iter().find(|row| is_called(row, name)).ok_or_else(|| unknown(name))?;
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| is_called(row, name));
    Ok(rows.iter().copied().filter(wanted).collect())
}

/// Cores that the servers kept busy; no number where it is not known.
fn server_cores(figures: &Figures) -> f64 {
    figures.server_cpu_seconds.unwrap_or(f64::NAN) / figures.seconds
}

fn is_called(row: &Row, name: &str) -> bool {
    row.name == name || row.number.to_string() == name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_numbered_and_their_targets_have_names_of_their_own() {
        for suite in [Suite::Peers, Suite::Growth] {
            for (row, number) in suite.rows().iter().zip(1..) {
                assert_eq!(row.number, number, "{}", row.name);
                let keys: BTreeSet<&str> = row.targets.iter().map(|target| target.key).collect();
                assert_eq!(keys.len(), row.targets.len(), "{}", row.name);
            }
        }
    }

    #[test]
    fn rows_are_chosen_by_number_or_name_in_the_order_of_the_page() {
        let names = |chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|&name| name.to_owned()).collect();
            super::chosen(Suite::Peers, &chosen)
                .map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert!(names(&["storm", "1"]).is_ok_and(|names| names == ["pull", "storm"]));
        assert!(names(&[]).is_ok_and(|names| names.len() == ROWS.len()));
        assert!(names(&["14"]).is_err_and(|error| error.to_string().contains("1 (pull)")));
    }
}
