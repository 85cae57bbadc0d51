//! A directory of backups.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tercet_storage::{Digest, Meta, StateDb, atomic_write, create_dir_durable, remove_dir_durable};

use super::error::BackupError;
use super::manifest::Manifest;
use super::wire::is_file_name;
use crate::fsck::lost::for_each_blob_record;

/// A directory of backups.
#[derive(Debug)]
pub(crate) struct BackupDir {
    root: PathBuf,
    /// Held by the run that writes.
    _lock: Option<File>,
}

impl BackupDir {
    /// For reading; it must be one.
    pub(crate) fn open(root: &Path) -> Result<Self, BackupError> {
        let directory = Self { root: root.to_owned(), _lock: None };
        if !directory.manifests().is_dir() {
            let message = format!("{} holds no backups", root.display());
            return Err(BackupError::Unknown(message));
        }
        Ok(directory)
    }

    /// For a further backup; made if it is not there. What a killed run has left of metadata is removed,
    /// its blobs stay.
    pub(crate) fn open_to_write(root: &Path) -> Result<Self, BackupError> {
        create_dir_durable(root)?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(BackupError::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BackupError::Locked { path: root.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(BackupError::io("lock", &path)(error)),
        }
        let directory = Self { root: root.to_owned(), _lock: Some(lock) };
        for path in [directory.blobs(), directory.all_metadata(), directory.manifests()] {
            create_dir_durable(&path)?;
        }
        create_dir_durable(&directory.partials())?;
        directory.remove_unfinished()?;
        Ok(directory)
    }

    /// The file of a blob. Whatever has this name was verified when it got it.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join(blob_name(digest))
    }

    /// Where a blob arrives.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    /// The checkpoint of a backup.
    pub(crate) fn metadata(&self, id: &str) -> PathBuf {
        self.all_metadata().join(id)
    }

    /// Whether a blob is there, by name and size.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, BackupError> {
        let path = self.blob(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file() && metadata.len() == size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BackupError::io("stat", &path)(error)),
        }
    }

    /// All backups, the oldest first.
    pub(crate) fn backups(&self) -> Result<Vec<Manifest>, BackupError> {
        let mut found = Vec::new();
        for path in list(&self.manifests())? {
            if path.extension().is_some_and(|extension| extension == "json") {
                let bytes = fs::read(&path).map_err(BackupError::io("read", &path))?;
                found.push(Manifest::parse(&bytes, &path.display().to_string())?);
            }
        }
        found.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        Ok(found)
    }

    /// The backup of that name, or the newest.
    pub(crate) fn choose(&self, id: Option<&str>) -> Result<Manifest, BackupError> {
        let backups = self.backups()?;
        let names: Vec<&str> = backups.iter().map(|backup| backup.id.as_str()).collect();
        let names = names.join(", ");
        let chosen = match id {
            Some(id) => backups.into_iter().find(|backup| backup.id == id),
            None => backups.into_iter().next_back(),
        };
        chosen.ok_or_else(|| {
            let here = self.root.display();
            BackupError::Unknown(match id {
                Some(id) => format!("{here} has no backup {id}, it has: {names}"),
                None => format!("{here} has no finished backup"),
            })
        })
    }

    /// Makes a backup one: its last step.
    pub(crate) fn publish(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let path = self.manifests().join(format!("{}.json", manifest.id));
        atomic_write(&path, &manifest.to_bytes()?)?;
        Ok(())
    }

    /// The blobs that a checkpoint references, with their sizes. The checkpoint's files are not touched:
    /// RocksDB opens copies.
    pub(crate) fn referenced(&self, id: &str) -> Result<Vec<(Digest, u64)>, BackupError> {
        let copy = self.partials().join(format!("opened-{id}"));
        remove_dir_durable(&copy)?;
        fs::create_dir(&copy).map_err(BackupError::io("create", &copy))?;
        for path in list(&self.metadata(id))? {
            let Some(name) = path.file_name() else { continue };
            let target = copy.join(name);
            // Tables never change once written; everything else may be written to by an open.
            let linked = path.extension().is_some_and(|extension| extension == "sst")
                && fs::hard_link(&path, &target).is_ok();
            if !linked {
                fs::copy(&path, &target).map_err(BackupError::io("copy", &path))?;
            }
        }
        let referenced = {
            let db = StateDb::open(&copy)?;
            let mut referenced = Vec::new();
            for_each_blob_record(Meta(&db), |digest, record| {
                if record.references > 0 {
                    referenced.push((digest.clone(), record.size));
                }
                Ok(())
            })?;
            referenced
        };
        remove_dir_durable(&copy)?;
        Ok(referenced)
    }

    fn remove_unfinished(&self) -> Result<(), BackupError> {
        let finished: Vec<String> = self.backups()?.into_iter().map(|backup| backup.id).collect();
        for path in list(&self.all_metadata())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_file_name(name) && !finished.iter().any(|id| id == name) {
                remove_dir_durable(&path)?;
            }
        }
        for path in list(&self.partials())? {
            if path.is_dir() {
                remove_dir_durable(&path)?;
            }
        }
        Ok(())
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn all_metadata(&self) -> PathBuf {
        self.root.join("metadata")
    }

    fn manifests(&self) -> PathBuf {
        self.root.join("backups")
    }

    fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }
}

/// The name of a blob inside a backup.
pub(crate) fn blob_name(digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let shard = hex.get(..2).unwrap_or_default().to_owned();
    Path::new("blobs").join(digest.algorithm().name()).join(shard).join(hex)
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = fs::read_dir(directory).map_err(BackupError::io("list", directory))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(BackupError::io("list", directory))?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn one_run_writes_at_a_time_and_what_a_killed_one_left_is_cleared() {
        let root = tempfile::tempdir().unwrap();
        let first = BackupDir::open_to_write(root.path()).unwrap();
        assert!(matches!(BackupDir::open_to_write(root.path()), Err(BackupError::Locked { .. })));
        fs::create_dir(first.metadata("killed")).unwrap();
        fs::write(first.partials().join("sha256-ab"), b"half").unwrap();
        drop(first);
        let second = BackupDir::open_to_write(root.path()).unwrap();
        assert!(!second.metadata("killed").exists());
        assert!(second.partials().join("sha256-ab").exists(), "half a blob is worth going on with");
        assert!(second.choose(None).is_err());
    }
}
