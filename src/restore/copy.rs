//! Blobs out of a backup into a data directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tercet_storage::{DataDir, Digest, create_dir_durable, sync_dir};

use super::Transfer;
use crate::backup::archive::{self, Member};
use crate::backup::progress::Progress;
use crate::backup::verified::{copy_verified, hash_file_as};
use crate::backup::{BackupDir, BackupError, Manifest};

/// Most threads: copying is hashing, and a disk.
const THREADS_MAX: usize = 4;

/// What all copies share.
pub(super) struct Copying<'a> {
    pub(super) data: &'a DataDir,
    /// Where blobs arrive: on the same file system, and removed at the end.
    pub(super) incoming: &'a Path,
    pub(super) referenced: &'a BTreeMap<Digest, u64>,
    pub(super) progress: &'a Progress,
}

/// Copies every referenced blob of a directory. Returns what is damaged, in words.
pub(super) fn copy_all(
    copying: &Copying<'_>,
    directory: &BackupDir,
    transfer: Transfer,
) -> Result<Vec<String>, BackupError> {
    let wanted: Vec<(&Digest, u64)> =
        copying.referenced.iter().map(|(digest, size)| (digest, *size)).collect();
    let (next, damaged, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
    let threads =
        std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some((digest, size)) = wanted.get(turn) else { return };
                    match copying.one(directory, digest, *size, transfer) {
                        Ok(()) => {}
                        Err(BackupError::Damaged { what, reason }) => {
                            let words = format!("{what}: {reason}");
                            damaged.lock().unwrap_or_else(PoisonError::into_inner).push(words);
                        }
                        Err(error) => {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        }
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(damaged.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

impl Copying<'_> {
    fn one(
        &self,
        directory: &BackupDir,
        digest: &Digest,
        size: u64,
        transfer: Transfer,
    ) -> Result<(), BackupError> {
        let target = self.data.blob(digest);
        if self.is_there(&target, size)? {
            return Ok(());
        }
        let path = directory.blob(digest);
        if transfer == Transfer::Link && self.link(&path, &target, digest, size)? {
            return Ok(());
        }
        let content = match File::open(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::damaged(digest.to_string(), "it is absent"));
            }
            Err(error) => return Err(BackupError::io("open", &path)(error)),
        };
        self.take(content, digest, size)
    }

    fn take(&self, content: impl io::Read, digest: &Digest, size: u64) -> Result<(), BackupError> {
        let temporary = self.temporary(digest);
        let target = self.data.blob(digest);
        copy_verified(content, &temporary, &target, digest, size, |read| {
            self.progress.advance(read);
        })
    }

    /// Whatever has a blob's name in a directory that is being restored was verified when it got it.
    fn is_there(&self, target: &Path, size: u64) -> Result<bool, BackupError> {
        match fs::symlink_metadata(target) {
            Ok(metadata) if metadata.is_file() && metadata.len() == size => {
                self.progress.advance(size);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BackupError::io("stat", target)(error)),
        }
    }

    /// Gives the backup's file a second name, if it is right and the file system lets it. Nothing ever
    /// writes into a blob's file, so neither can hurt the other; but both are on one disk.
    fn link(
        &self,
        path: &Path,
        target: &Path,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, BackupError> {
        let temporary = self.temporary(digest);
        match fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::io("remove", &temporary)(error)),
        }
        if fs::hard_link(path, &temporary).is_err() {
            return Ok(false);
        }
        let (found, actual) = hash_file_as(&temporary, digest.algorithm())
            .map_err(BackupError::io("read", &temporary))?;
        if found != size || actual != *digest {
            fs::remove_file(&temporary).map_err(BackupError::io("remove", &temporary))?;
            let reason = format!("it has {found} bytes of {size} and digest {actual}");
            return Err(BackupError::damaged(digest.to_string(), reason));
        }
        let shard = target.parent().unwrap_or(target);
        create_dir_durable(shard)?;
        fs::rename(&temporary, target).map_err(BackupError::io("rename to", target))?;
        sync_dir(shard)?;
        self.progress.advance(size);
        Ok(true)
    }

    /// Takes every referenced blob out of a tar file. Returns what is damaged, in words.
    pub(super) fn unpack(
        &self,
        path: &Path,
        manifest: &Manifest,
    ) -> Result<Vec<String>, BackupError> {
        let mut damaged = Vec::new();
        archive::for_each(path, manifest, |member, content| {
            let Member::Blob(digest) = member else { return Ok(()) };
            let Some(size) = self.referenced.get(&digest).copied() else { return Ok(()) };
            if self.is_there(&self.data.blob(&digest), size)? {
                return Ok(());
            }
            match self.take(content, &digest, size) {
                Err(BackupError::Damaged { what, reason }) => {
                    damaged.push(format!("{what}: {reason}"));
                    Ok(())
                }
                taken => taken,
            }
        })?;
        Ok(damaged)
    }

    fn temporary(&self, digest: &Digest) -> std::path::PathBuf {
        self.incoming.join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }
}
