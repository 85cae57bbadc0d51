//! File operations that are durable when they return. A failed fsync ends the process.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::{failpoint, fatal};

/// The suffix of a file that [`atomic_write`] has not yet put in place.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Replaces `path` by a file with `bytes`: a crash at any step leaves the old file or the new one, whole.
/// The caller serialises writers of one path.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = temporary_path(path);
    let mut file = File::create(&temporary).map_err(StorageError::io("create", &temporary))?;
    file.write_all(bytes).map_err(|error| {
        // A full disk needs the bytes back; what cannot be removed is removed at the next start.
        fs::remove_file(&temporary).ok();
        StorageError::io("write", &temporary)(error)
    })?;
    failpoint::hit("atomic_write.after_write");
    sync_file(&file, &temporary);
    failpoint::hit("atomic_write.after_file_sync");
    fs::rename(&temporary, path).map_err(StorageError::io("rename to", path))?;
    failpoint::hit("atomic_write.after_rename");
    sync_parent(path)?;
    failpoint::hit("atomic_write.after_dir_sync");
    Ok(())
}

/// Makes the bytes of `file` durable.
pub fn sync_file(file: &File, path: &Path) {
    if let Err(error) = file.sync_all() {
        fatal::die("fsync", path, &error);
    }
}

/// Makes the names in the directory `path` durable.
pub fn sync_dir(path: &Path) -> Result<(), StorageError> {
    let directory = File::open(path).map_err(StorageError::io("open directory", path))?;
    sync_file(&directory, path);
    Ok(())
}

/// Makes the name of `path` durable in the directory that holds it.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StorageError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        // A bare file name is relative to the working directory.
        _ => sync_dir(Path::new(".")),
    }
}

/// Creates the directory `path` and those above it, durably.
pub fn create_dir_durable(path: &Path) -> Result<(), StorageError> {
    if path.is_dir() {
        // It may have been created just before a crash, with its name not yet durable.
        return sync_parent(path);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !parent.is_dir()
    {
        create_dir_durable(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(StorageError::io("create directory", path)(error)),
    }
    sync_parent(path)
}

/// Removes the directory `path` and all in it, durably. Absent is fine.
pub fn remove_dir_durable(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::io("remove directory", path)(error)),
    }
}

/// Removes what a crash during [`atomic_write`] left in `directory`.
pub(crate) fn remove_stray_temporaries(directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let entry = entry.map_err(StorageError::io("list", directory))?;
        let is_file = entry.file_type().map_err(StorageError::io("stat", &entry.path()))?.is_file();
        if is_file && entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            fs::remove_file(entry.path()).map_err(StorageError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_no_temporary() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.json");
        atomic_write(&path, b"one").unwrap();
        atomic_write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn atomic_write_that_fails_keeps_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.json");
        atomic_write(&path, b"one").unwrap();
        // Something that cannot be overwritten sits where the temporary file goes.
        fs::create_dir(temporary_path(&path)).unwrap();
        assert!(atomic_write(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn directories_are_created_with_their_parents() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        create_dir_durable(&deep).unwrap();
        create_dir_durable(&deep).unwrap();
        assert!(deep.is_dir());
        remove_dir_durable(&directory.path().join("a")).unwrap();
        remove_dir_durable(&directory.path().join("a")).unwrap();
        assert!(!deep.exists());
    }

    #[test]
    fn strays_are_removed_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("identity.json.tmp"), b"half").unwrap();
        fs::write(directory.path().join("identity.json"), b"whole").unwrap();
        remove_stray_temporaries(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
