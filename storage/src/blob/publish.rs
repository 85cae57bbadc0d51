//! Gives verified content its final name.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use super::collect::touch;
use super::locks::DigestGuard;
use super::sink::Sink;
use super::store::Inner;
use super::verified::{FileIdentity, Verified};
use crate::durable::{create_dir_durable, sync_dir, sync_file};
use crate::error::StorageError;
use crate::planted::{PlantedBug, is_planted};
use crate::{Digest, failpoint};

/// Publishes the content of `sink` as `digest` and returns its size. Durable on return, the names of new
/// directories included. The guard shows that nobody else publishes, deletes or quarantines this digest.
///
/// From here on the file counts as young, whether it is new or was in place: nobody may take it for one that
/// nobody needs before its owner has made it known (see [`super::pins`]).
///
/// On an error the content is still under its temporary name.
pub(super) fn publish(
    store: &Inner,
    digest: &Digest,
    sink: &Sink,
    guard: &DigestGuard,
) -> Result<u64, StorageError> {
    let actual = sink.digest(digest.algorithm())?;
    if actual != *digest && !is_planted(PlantedBug::SkipDigestCheck) {
        return Err(StorageError::DigestMismatch { expected: digest.clone(), actual });
    }
    let size = sink.offset();
    let target = store.dir.blob(digest);
    let shard = target.parent().unwrap_or(&target);
    if already_published(&target, digest, size, &store.verified)? {
        // Whoever published it may have crashed before its name was durable, and this caller will be told
        // that it is.
        let file = File::open(&target).map_err(StorageError::io("open", &target))?;
        touch(store, digest, &file, &target, guard)?;
        sync_file(&file, &target);
        create_dir_durable(shard)?;
        sync_dir(shard)?;
        return Ok(size);
    }
    store.pins.pin(digest);
    // An upload may have lain for hours since its last byte.
    let stamped = sink.file().set_modified(SystemTime::now());
    stamped.map_err(StorageError::io("stamp", sink.path()))?;
    failpoint::hit("blob.before_file_sync");
    if !is_planted(PlantedBug::SkipBlobFsync) {
        sync_file(sink.file(), sink.path());
    }
    failpoint::hit("blob.after_file_sync");
    create_dir_durable(shard)?;
    failpoint::hit("blob.before_rename");
    fs::rename(sink.path(), &target).map_err(StorageError::io("rename to", &target))?;
    failpoint::hit("blob.after_rename");
    if !is_planted(PlantedBug::SkipBlobFsync) {
        sync_dir(shard)?;
    }
    failpoint::hit("blob.after_dir_sync");
    Ok(size)
}

/// Only a file that this process has read and found right counts: one of the same size may have rotted, and
/// the caller is about to promise that the content is safe. Anything else is replaced.
fn already_published(
    target: &Path,
    digest: &Digest,
    size: u64,
    verified: &Verified,
) -> Result<bool, StorageError> {
    match fs::symlink_metadata(target) {
        Ok(metadata) => Ok(metadata.is_file()
            && metadata.len() == size
            && verified.contains(digest, &FileIdentity::of(&metadata))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::io("stat", target)(error)),
    }
}
