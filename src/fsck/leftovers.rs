//! What a crash, an operator or an earlier recovery has left beside the data.

use std::fs;
use std::path::{Path, PathBuf};

use tercet_storage::{DataDir, StorageError, UploadId};

use super::blobs::entries;
use super::report::{Report, Severity};

/// Things that only take space and that nobody needs.
pub(super) fn check(data: &DataDir, report: &mut Report) -> Result<Vec<PathBuf>, StorageError> {
    let mut strays = Vec::new();
    for path in entries(data.root())? {
        match name(&path) {
            "identity.json" | "lock" | "log" | "state" | "blobs" | "uploads" | "quarantine"
            | "snapshots" | "reserve" | "scrub.json" | "edge-uses" | "lost+found" => {}
            "state.replaced" => {
                report.find(
                    Severity::Note,
                    "leftovers",
                    "a snapshot was being installed",
                    "the next start finishes or undoes it",
                );
            }
            // An unfinished recovery or restore is told with the identity, and needs it.
            "refound.new" if report.replica.is_none() => {}
            "refound.new" => strays.push(path),
            stray if stray.ends_with(".tmp") => strays.push(path),
            aside if aside.starts_with("before-recovery-") => {
                let what = format!("{} holds the databases from before a recovery", path.display());
                report.find(
                    Severity::Note,
                    "leftovers",
                    what,
                    "remove it once nobody needs it as evidence",
                );
            }
            _ => {
                let what = format!("{} is not Tercet's", path.display());
                report.find(Severity::Note, "leftovers", what, "nothing reads it");
            }
        }
    }
    check_uploads(data, report, &mut strays)?;
    check_quarantine(data, report)?;
    for path in &strays {
        let what = format!("{} was left by a crash", path.display());
        report.find(
            Severity::Note,
            "leftovers",
            what,
            "the next start removes it, and so does --repair",
        );
    }
    Ok(strays)
}

fn check_uploads(
    data: &DataDir,
    report: &mut Report,
    strays: &mut Vec<PathBuf>,
) -> Result<(), StorageError> {
    let mut open = 0;
    for path in entries(&data.uploads())? {
        if name(&path).starts_with("tmp-") {
            strays.push(path);
            continue;
        }
        if name(&path).parse::<UploadId>().is_err() {
            let what = format!("{} is no upload", path.display());
            report.find(Severity::Note, "uploads", what, "nothing reads it");
            continue;
        }
        open += 1;
        let meta = fs::read(path.join("meta.json")).ok();
        let sound =
            meta.is_some_and(|meta| serde_json::from_slice::<serde_json::Value>(&meta).is_ok());
        if !sound {
            let what = format!("{} cannot be gone on with", path.display());
            report.find(
                Severity::Note,
                "uploads",
                what,
                "the next start removes it; its client begins anew",
            );
        }
    }
    report.count("open uploads", open);
    Ok(())
}

fn check_quarantine(data: &DataDir, report: &mut Report) -> Result<(), StorageError> {
    let files = entries(&data.quarantine())?;
    let held = files.iter().filter(|path| !name(path).ends_with(".reason")).count();
    report.count("files in quarantine", held as u64);
    if held > 0 {
        let what = format!("{held} files are kept as evidence of damage");
        report.find(
            Severity::Note,
            "quarantine",
            what,
            "look at the disk they came from; remove them when nobody needs them any more",
        );
    }
    Ok(())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
