//! Blob files: each one of the catalogue there and right, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tercet_storage::{Algorithm, DataDir, Digest, Meta, StateDb, StorageError};

use super::lost::{for_each_blob, incomplete};
use super::report::{Report, Severity};
use crate::backup::progress::Progress;
use crate::backup::verified::hash_file_as;

/// Threads that hash.
const THREADS_MAX: usize = 4;
/// Blobs that are named one by one.
const NAMED_MAX: usize = 100;

/// Files to move away.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    /// Blobs that are not what their name says, and why.
    pub(super) corrupt: Vec<(Digest, String)>,
    /// Files that the catalogue does not know, with their age.
    pub(super) orphans: Vec<(PathBuf, Duration)>,
    /// Files that are no blobs.
    pub(super) strangers: Vec<PathBuf>,
}

/// What being absent means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Every blob belongs here.
    Everything,
    /// Other replicas may hold it instead.
    APart,
}

pub(super) fn check(
    data: &DataDir,
    db: Option<&StateDb>,
    holds: Holds,
    report: &mut Report,
) -> Result<Wrong, StorageError> {
    let mut wrong = Wrong::default();
    let mut catalogue = BTreeMap::new();
    let mut is_whole = false;
    if let Some(db) = db {
        let listed = for_each_blob(Meta(db), |digest, size| {
            catalogue.insert(digest.clone(), size);
            Ok(())
        });
        // A catalogue that cannot be read was told with the state.
        is_whole = listed.is_ok();
        if is_whole {
            check_catalogue(data, db, &catalogue, holds, report, &mut wrong)?;
        }
    }
    walk(data, &catalogue, report, &mut wrong)?;
    if !is_whole {
        // Without the whole catalogue nobody knows what belongs here.
        wrong.orphans.clear();
    }
    Ok(wrong)
}

fn check_catalogue(
    data: &DataDir,
    db: &StateDb,
    catalogue: &BTreeMap<Digest, u64>,
    holds: Holds,
    report: &mut Report,
    wrong: &mut Wrong,
) -> Result<(), StorageError> {
    let (mut present, mut lost) = (Vec::new(), BTreeMap::new());
    for (digest, size) in catalogue {
        let path = data.blob(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {
                lost.insert(digest.clone(), *size);
                wrong.strangers.push(path);
            }
            Ok(metadata) if metadata.len() != *size => {
                let reason = format!("it has {} bytes, {size} were committed", metadata.len());
                wrong.corrupt.push((digest.clone(), reason));
            }
            Ok(_) => present.push((digest, *size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lost.insert(digest.clone(), *size);
            }
            Err(source) => return Err(StorageError::Io { operation: "stat", path, source }),
        }
    }
    report.count("blobs in the catalogue", catalogue.len() as u64);
    report.count("blobs read", present.len() as u64);
    report.count("bytes read", present.iter().map(|(_, size)| size).sum());
    wrong.corrupt.extend(hash_all(data, &present));
    for (digest, reason) in wrong.corrupt.iter().take(NAMED_MAX) {
        let what = format!("{digest}: {reason}");
        report.find(Severity::Damage, "blobs", what, "--repair moves it to quarantine; the replica then fetches a good copy from another one");
    }
    if let Some(more) = wrong.corrupt.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        report.find(Severity::Damage, "blobs", format!("{more} further corrupt blobs"), "as above");
    }
    report.count("blobs missing", lost.len() as u64);
    if !lost.is_empty() {
        tell_missing(&lost, holds, report);
    }
    for (digest, _) in &wrong.corrupt {
        if let Some(size) = catalogue.get(digest) {
            lost.insert(digest.clone(), *size);
        }
    }
    if holds == Holds::Everything {
        let images = incomplete(Meta(db), &lost).unwrap_or_default();
        report.incomplete_images = images.iter().map(super::lost::Incomplete::label).collect();
    }
    Ok(())
}

fn tell_missing(lost: &BTreeMap<Digest, u64>, holds: Holds, report: &mut Report) {
    if holds == Holds::APart {
        let what = format!("{} blobs of the catalogue are not on this disk", lost.len());
        report.find(
            Severity::Note,
            "blobs",
            what,
            "expected where there are more replicas than copies",
        );
        return;
    }
    for digest in lost.keys().take(NAMED_MAX) {
        let advice = "the replica fetches it from another one after its start";
        report.find(Severity::Missing, "blobs", format!("{digest} is not here"), advice);
    }
    if let Some(more) = lost.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        report.find(Severity::Missing, "blobs", format!("{more} further blobs"), "as above");
    }
}

/// Reads every blob to its end. Returns those that are wrong, and why.
fn hash_all(data: &DataDir, blobs: &[(&Digest, u64)]) -> Vec<(Digest, String)> {
    let progress = Progress::new("reading blobs", blobs.iter().map(|(_, size)| size).sum());
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads =
        std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((digest, size)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let reason = match hash_file_as(&data.blob(digest), digest.algorithm()) {
                        Ok((_, actual)) if actual == **digest => None,
                        Ok((_, actual)) => Some(format!("its bytes hash to {actual}")),
                        Err(error) => Some(format!("cannot be read: {error}")),
                    };
                    if let Some(reason) = reason {
                        let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                        wrong.push(((*digest).clone(), reason));
                    }
                    progress.advance(*size);
                }
            });
        }
    });
    progress.finish();
    let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    wrong.sort();
    wrong
}

/// Every file below `blobs`.
fn walk(
    data: &DataDir,
    catalogue: &BTreeMap<Digest, u64>,
    report: &mut Report,
    wrong: &mut Wrong,
) -> Result<(), StorageError> {
    let (mut orphans, mut orphan_bytes) = (0, 0);
    for algorithm in Algorithm::ALL {
        for shard in entries(&data.blobs().join(algorithm.name()))? {
            if !shard.is_dir() {
                wrong.strangers.push(shard);
                continue;
            }
            for path in entries(&shard)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let digest: Option<Digest> = format!("{algorithm}:{name}").parse().ok();
                let Some(digest) = digest.filter(|digest| data.blob(digest) == path) else {
                    wrong.strangers.push(path);
                    continue;
                };
                if catalogue.contains_key(&digest) {
                    continue;
                }
                let metadata = fs::symlink_metadata(&path);
                let metadata = metadata.map_err(io_error("stat", &path))?;
                let written = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let age = SystemTime::now().duration_since(written).unwrap_or_default();
                orphans += 1;
                orphan_bytes += metadata.len();
                wrong.orphans.push((path, age));
            }
        }
    }
    report.count("orphans", orphans);
    report.count("orphan bytes", orphan_bytes);
    if orphans > 0 {
        let what =
            format!("{orphans} files ({orphan_bytes} bytes) that the catalogue does not know");
        report.find(Severity::Note, "blobs", what, "uploads on their way, or left over: a running replica removes them after gc.orphan_grace_seconds; --repair moves those older than that to quarantine");
    }
    for path in &wrong.strangers {
        let what = format!("{} is not the file of a blob", path.display());
        report.find(
            Severity::Note,
            "blobs",
            what,
            "nothing reads it; --repair moves it to quarantine",
        );
    }
    Ok(())
}

pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", directory)(error)),
    };
    let mut found = Vec::new();
    for entry in listed {
        found.push(entry.map_err(io_error("list", directory))?.path());
    }
    found.sort();
    Ok(found)
}

pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { operation, path, source }
}
