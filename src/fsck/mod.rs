//! Looks at the data directory of a replica that does not run, and repairs what one replica may repair.

mod blobs;
mod databases;
mod leftovers;
pub(crate) mod lost;
mod repair;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tercet_raft::{StatePosition, inspect_log};
use tercet_storage::{DataDir, StorageError};

use blobs::Holds;
use report::{Report, Severity};

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Not a byte.
    Look,
    /// Wrong blobs, old orphans and strays are moved away or removed.
    Repair,
}

/// What the configuration says about the replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Copies of a blob.
    pub(crate) replication_factor: usize,
    /// Whether it keeps only what is pulled through it.
    pub(crate) edge: bool,
    /// Age from which a file that the catalogue does not know may be moved away.
    pub(crate) orphan_grace: Duration,
}

/// Checks the directory, whose lock the caller holds.
///
/// # Errors
/// When the file system does not let it look; what is wrong with the data is in the report.
pub(crate) fn check(
    data: &DataDir,
    mode: Mode,
    expected: Expected,
) -> Result<Report, StorageError> {
    let mut report = Report { data_dir: data.root().display().to_string(), ..Report::default() };
    let state = databases::check(data, &mut report);
    let members = state.as_ref().map_or(0, |(_, position)| position.members.len());
    let holds = match expected.edge || members > expected.replication_factor {
        true => Holds::APart,
        false => Holds::Everything,
    };
    let mut wrong = blobs::check(data, state.as_ref().map(|(db, _)| db), holds, &mut report)?;
    let strays = leftovers::check(data, &mut report)?;
    let position = state.as_ref().map(|(_, position)| position);
    keep_orphans_in_doubt(position, data, &mut wrong, &mut report);
    drop(state);
    if mode == Mode::Repair {
        repair::quarantine(data, &wrong, expected.orphan_grace, &mut report)?;
        repair::remove_strays(&strays, &mut report)?;
        let state_is_sound = !report.findings.iter().any(|finding| {
            finding.severity == Severity::Damage
                && matches!(finding.part, "state" | "identity" | "log")
                && !finding.advice.contains("derived tables")
        });
        let derived =
            report.findings.iter().any(|finding| finding.advice.contains("derived tables"));
        // Opening the database for writing is for one that is otherwise sound.
        if derived && state_is_sound {
            repair::rebuild_derived(data, &mut report)?;
        }
    }
    report.sort();
    Ok(report)
}

/// A file without a record may be that of a push whose record is in a table that cannot be read, or in the log
/// and not yet in the state: a power loss takes the last of the state, and the log brings it back.
fn keep_orphans_in_doubt(
    state: Option<&StatePosition>,
    data: &DataDir,
    wrong: &mut blobs::Wrong,
    report: &mut Report,
) {
    if wrong.orphans.is_empty() {
        return;
    }
    let damaged = report.findings.iter().any(|finding| {
        finding.severity == Severity::Damage && matches!(finding.part, "state" | "log")
    });
    let applied = state.and_then(|position| position.applied);
    // A log that should be there and is not was told as damage.
    let all_applied = !data.log().join("CURRENT").exists()
        || inspect_log(&data.log()).is_ok_and(|log| log.last.or(log.purged) <= applied);
    if damaged || !all_applied {
        wrong.orphans.clear();
        report.find(
            Severity::Note,
            "blobs",
            "files that no record knows are left alone: the state does not say all that the log does, or is damaged"
                .to_owned(),
            "start the replica once; what is still unknown then goes by itself",
        );
    }
}
