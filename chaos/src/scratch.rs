//! A folder per cluster that vanishes with it, also after a killed test run.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{binary::temporary_folder, disk::unmount_below, say::warn};

const PREFIX: &str = "cluster-";
/// Keeps folders after a failure, for a look at what the replicas left on disk.
const KEEP: &str = "TERCET_CHAOS_KEEP";

/// A temporary folder under the build folder.
#[derive(Debug)]
pub struct Scratch {
    folder: Option<TempDir>,
    path: PathBuf,
    /// Held as long as the folder is in use: a folder without a holder is a killed run's rest.
    _lock: File,
}

impl Scratch {
    /// Makes a folder, after clearing those that killed runs left behind.
    pub fn new() -> Result<Self> {
        let parent = temporary_folder()?;
        remove_abandoned(&parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent)?;
        let path = folder.path().to_path_buf();
        // Locked before it gets its name: else another run could take it for abandoned in between.
        let unnamed = path.with_extension("new");
        let lock = File::create(&unnamed).context("make the folder's lock file")?;
        lock.lock().context("lock the folder")?;
        fs::rename(&unnamed, lock_path(&path)).context("name the folder's lock file")?;
        Ok(Self { folder: Some(folder), path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder, and says where it is.
    pub(crate) fn keep(&mut self) {
        if let Some(folder) = self.folder.take() {
            warn(&format!("kept: {}", folder.keep().display()));
        }
    }

    /// After a failure: keeps the folder if the environment asks for it, and says where it is.
    pub fn failed(&mut self) {
        if std::env::var_os(KEEP).is_some() {
            self.keep();
        } else {
            warn(&format!("the folder {} is removed; {KEEP}=1 keeps it", self.path.display()));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.folder.take());
        // A file that is gone already is what we want.
        let _ = fs::remove_file(lock_path(&self.path));
    }
}

/// Beside the folder, not in it: the folder's content belongs to the replicas.
fn lock_path(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !ours || path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        // Only who gets the lock removes; a running test holds its own.
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            unmount_below(&path.with_extension(""));
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
}
