//! The repairs that one replica may do by itself: nothing that all replicas agree on is touched.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tercet_storage::{
    Clock, DataDir, StateDb, StorageError, SystemClock, create_dir_durable, remove_dir_durable,
    sync_dir,
};

use super::blobs::{Wrong, io_error};
use super::report::Report;

/// Moves wrong files to quarantine. Evidence stays: nothing is deleted.
pub(super) fn quarantine(
    data: &DataDir,
    wrong: &Wrong,
    orphan_grace: Duration,
    report: &mut Report,
) -> Result<(), StorageError> {
    create_dir_durable(&data.quarantine())?;
    let now_ms = SystemClock.now_ms();
    for (digest, reason) in &wrong.corrupt {
        let (target, note) = data.quarantined(digest, now_ms);
        move_away(&data.blob(digest), &target, &note, reason)?;
        report.repaired.push(format!("{digest} is in quarantine"));
    }
    let mut orphans = 0;
    for (path, age) in &wrong.orphans {
        if *age < orphan_grace {
            continue;
        }
        stray(data, path, now_ms, "the catalogue does not know it")?;
        orphans += 1;
    }
    if orphans > 0 {
        report.repaired.push(format!("{orphans} orphans are in quarantine"));
    }
    for path in &wrong.strangers {
        stray(data, path, now_ms, "it is not the file of a blob")?;
        report.repaired.push(format!("{} is in quarantine", path.display()));
    }
    Ok(())
}

/// Removes what only a crash can have left.
pub(super) fn remove_strays(
    strays: &[std::path::PathBuf],
    report: &mut Report,
) -> Result<(), StorageError> {
    for path in strays {
        if path.is_dir() {
            remove_dir_durable(path)?;
        } else {
            fs::remove_file(path).map_err(io_error("remove", path))?;
        }
        report.repaired.push(format!("{} is removed", path.display()));
    }
    Ok(())
}

/// Makes the tables anew that are made from others.
pub(super) fn rebuild_derived(data: &DataDir, report: &mut Report) -> Result<(), StorageError> {
    let db = StateDb::open(&data.state())?;
    db.rebuild_derived()?;
    db.flush_wal();
    report.repaired.push("the derived tables of the state are made anew".to_owned());
    Ok(())
}

fn stray(data: &DataDir, path: &Path, now_ms: u64, reason: &str) -> Result<(), StorageError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("stray");
    let target = data.quarantine().join(format!("{name}-{now_ms}"));
    let note = data.quarantine().join(format!("{name}-{now_ms}.reason"));
    move_away(path, &target, &note, reason)
}

fn move_away(from: &Path, to: &Path, note: &Path, reason: &str) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(io_error("rename", from))?;
    fs::write(note, format!("{reason} (tercet fsck; was {})", from.display()))
        .map_err(io_error("write", note))?;
    sync_dir(to.parent().unwrap_or(to))?;
    sync_dir(from.parent().unwrap_or(from))
}
