//! A consistent, durable copy of a database made of hard links.

use std::fs::{self, File};
use std::path::Path;

use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;

use crate::durable::{create_dir_durable, sync_dir, sync_file, sync_parent};
use crate::error::StorageError;
use crate::failpoint;

/// Writes a checkpoint of `db` into the directory `to`, which must not exist. All that `db` holds, and the
/// checkpoint with its name, are durable when this returns. A failed attempt leaves no `to` behind.
pub fn checkpoint(db: &DB, to: &Path) -> Result<(), StorageError> {
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_dir_durable(parent)?;
    }
    let database =
        |source| StorageError::Database { operation: "checkpoint", path: to.to_owned(), source };
    let created = Checkpoint::new(db).and_then(|checkpoint| checkpoint.create_checkpoint(to));
    created.map_err(database)?;
    failpoint::hit("checkpoint.after_create");
    let synced = sync_tree(to);
    if synced.is_err() {
        // Best effort: the error that matters is the one being returned.
        fs::remove_dir_all(to).ok();
    }
    synced?;
    failpoint::hit("checkpoint.after_sync");
    Ok(())
}

fn sync_tree(directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let path = entry.map_err(StorageError::io("list", directory))?.path();
        let file = File::open(&path).map_err(StorageError::io("open", &path))?;
        sync_file(&file, &path);
    }
    sync_dir(directory)?;
    sync_parent(directory)
}
