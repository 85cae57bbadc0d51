//! Identity, log and state: what makes a replica the one it is.

use std::fs;

use tercet_raft::{
    Identity, LogInspection, RaftError, StatePosition, hash_state, inspect_log, inspect_state,
};
use tercet_storage::{DataDir, KvRead, Meta, StateDb, state_wal_is_torn};

use super::report::{Report, Severity};

/// What to do about everything that is agreed on by all replicas.
const REJOIN: &str = "never repaired here: empty this replica's data directory and start it, it rejoins and copies everything; if it is the last one, see `tercet recover` or a backup";
const STATE_ONLY: &str = "if this is the last replica: `tercet recover --ignore-log`; otherwise empty its data directory and start it, it rejoins";
/// A replica applies what a majority of others has synced.
const UNSYNCED: &str = "start the replica: it goes on from the state";
/// A look changes nothing, so it cannot cut anything off.
const TORN: &str = "start the replica: it cuts off what is torn, and applies again what the Raft log has; then look again";

/// Checks them and returns the state, if it can be read.
pub(super) fn check(data: &DataDir, report: &mut Report) -> Option<(StateDb, StatePosition)> {
    let identity = check_identity(data, report);
    let log = check_log(data, report);
    let (db, position) = check_state(data, report)?;
    compare(log.as_ref(), &position, report);
    if let Some(identity) = identity {
        check_seat(&db, &identity, report);
    }
    Some((db, position))
}

fn check_identity(data: &DataDir, report: &mut Report) -> Option<Identity> {
    match Identity::load(data) {
        Ok(Some(identity)) => {
            report.replica = Some(identity.name.clone());
            report.cluster_id = Some(identity.cluster_id.clone());
            Some(identity)
        }
        Ok(None) => {
            let empty = !data.log().exists() && !data.state().exists();
            let (severity, advice) = match empty {
                true => (
                    Severity::Note,
                    "an empty directory: a replica started on it looks for its cluster",
                ),
                false => (
                    Severity::Damage,
                    "put the file back from the same disk; without it, the databases are cleared at the next start",
                ),
            };
            report.find(severity, "identity", "there is no identity.json", advice);
            None
        }
        Err(error @ RaftError::Unfinished { .. }) => {
            report.find(Severity::Damage, "identity", error.to_string(), "run that command again");
            None
        }
        Err(error) => {
            report.find(Severity::Damage, "identity", error.to_string(), REJOIN);
            None
        }
    }
}

fn check_log(data: &DataDir, report: &mut Report) -> Option<LogInspection> {
    let path = data.log();
    if !path.join("CURRENT").exists() {
        if report.replica.is_some() {
            let what = format!("{} is no database: votes and entries are gone", path.display());
            report.find(Severity::Damage, "log", what, STATE_ONLY);
        }
        return None;
    }
    match inspect_log(&path) {
        Ok(log) => {
            report.count("log entries", log.entries);
            for problem in &log.problems {
                report.find(Severity::Damage, "log", problem.clone(), STATE_ONLY);
            }
            Some(log)
        }
        Err(error) => {
            report.find(Severity::Damage, "log", error.to_string(), STATE_ONLY);
            None
        }
    }
}

fn check_state(data: &DataDir, report: &mut Report) -> Option<(StateDb, StatePosition)> {
    let path = data.state();
    if !path.join("CURRENT").exists() {
        if report.replica.is_some() && fs::symlink_metadata(&path).is_ok() {
            let what = format!("{} is no database", path.display());
            report.find(Severity::Damage, "state", what, REJOIN);
        }
        return None;
    }
    match state_wal_is_torn(&path) {
        Ok(false) => {}
        Ok(true) => {
            let what =
                "a loss of power, or a bad disk, tore its write-ahead log: it was not looked at";
            report.find(Severity::Damage, "state", what.to_owned(), TORN);
            return None;
        }
        Err(error) => {
            report.find(Severity::Damage, "state", error.to_string(), REJOIN);
            return None;
        }
    }
    let db = match StateDb::open_read_only(&path) {
        Ok(db) => db,
        Err(error) => {
            report.find(Severity::Damage, "state", error.to_string(), REJOIN);
            return None;
        }
    };
    match db.inspect() {
        Ok(inspected) => {
            for (table, records) in &inspected.records {
                report.count(format!("records in {table}"), *records);
            }
            for problem in &inspected.problems {
                let what = format!("{} `{}`: {}", problem.table, problem.key, problem.problem);
                let advice = match problem.derived {
                    true => "--repair makes the derived tables anew",
                    false => REJOIN,
                };
                report.find(Severity::Damage, "state", what, advice);
            }
            let more = inspected.problem_count - inspected.problems.len() as u64;
            if more > 0 {
                let what = format!("{more} further problems");
                report.find(Severity::Damage, "state", what, REJOIN);
            }
        }
        Err(error) => report.find(Severity::Damage, "state", error.to_string(), REJOIN),
    }
    match inspect_state(&db) {
        Ok(position) => {
            for problem in &position.problems {
                report.find(Severity::Damage, "state", problem.clone(), REJOIN);
            }
            report.count("applied index", position.applied.unwrap_or(0));
            // A database of an older version lacks tables, and one with damage cannot be read: told above.
            report.state = hash_state(&db).ok().map(|state| state.digest.to_string());
            Some((db, position))
        }
        Err(error) => {
            report.find(Severity::Damage, "state", error.to_string(), REJOIN);
            None
        }
    }
}

/// purged <= applied <= last, unless the state came as a snapshot.
fn compare(log: Option<&LogInspection>, state: &StatePosition, report: &mut Report) {
    let Some(log) = log else { return };
    if log.purged > state.applied {
        let what = format!(
            "begins behind {} and the state ends at {}: entries between them are lost",
            log.purged.unwrap_or(0),
            state.applied.unwrap_or(0)
        );
        report.find(Severity::Damage, "log", what, REJOIN);
    }
    let last = log.last.or(log.purged);
    if state.applied <= last || state.applied == state.installed {
        return;
    }
    let ends = format!(
        "ends at {} and entries up to {} were applied",
        last.unwrap_or(0),
        state.applied.unwrap_or(0)
    );
    if state.log_synced.is_some() && last.max(state.installed) >= state.log_synced {
        let what = format!("{ends}: a loss of power took what was not synced yet");
        report.find(Severity::Note, "log", what, UNSYNCED);
    } else {
        let what = format!("{ends}: acknowledged entries are lost");
        report.find(Severity::Damage, "log", what, STATE_ONLY);
    }
}

fn check_seat(db: &StateDb, identity: &Identity, report: &mut Report) {
    if retired(Meta(db), identity.node_id) {
        let what = format!("node {} was retired by its cluster", identity.node_id);
        report.find(
            Severity::Damage,
            "identity",
            what,
            "empty this data directory: the replica rejoins under a new id",
        );
    }
}

fn retired<R: KvRead>(meta: Meta<'_, R>, node_id: u64) -> bool {
    meta.retired(node_id).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_lost_what_was_not_synced_is_no_damage() {
        let found = |last: u64, log_synced: Option<u64>| {
            let log = LogInspection { last: Some(last), ..LogInspection::default() };
            let state = StatePosition { applied: Some(9), log_synced, ..StatePosition::default() };
            let mut report = Report::default();
            compare(Some(&log), &state, &mut report);
            report.findings.into_iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(found(9, Some(9)), []);
        assert_eq!(found(6, Some(6)), [Severity::Note]);
        assert_eq!(found(5, Some(6)), [Severity::Damage]);
        assert_eq!(found(5, None), [Severity::Damage], "an older version does not tell");
    }
}
