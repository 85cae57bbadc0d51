//! Files that get their name only once their bytes are right and on disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tercet_storage::{Algorithm, Digest, DigestHasher, create_dir_durable, sync_dir, sync_file};

use super::error::BackupError;

/// Bytes read and hashed at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A file under a temporary name.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: File,
    path: PathBuf,
    hasher: DigestHasher,
    written: u64,
}

impl Incoming {
    /// An empty one; what was there is overwritten.
    pub(crate) fn create(path: &Path, algorithm: Algorithm) -> Result<Self, BackupError> {
        let file = File::create(path).map_err(BackupError::io("create", path))?;
        let hasher = DigestHasher::new(algorithm);
        Ok(Self { file, path: path.to_owned(), hasher, written: 0 })
    }

    /// Goes on with what an earlier run has left, if it did: its bytes are hashed again.
    pub(crate) fn resume(path: &Path, algorithm: Algorithm) -> Result<Self, BackupError> {
        let mut open = File::options();
        open.read(true).write(true).create(true).truncate(false);
        let mut file = open.open(path).map_err(BackupError::io("open", path))?;
        let mut hasher = DigestHasher::new(algorithm);
        let written = read_all(&mut file, |bytes| hasher.update(bytes))
            .map_err(BackupError::io("read", path))?;
        Ok(Self { file, path: path.to_owned(), hasher, written })
    }

    /// How many bytes there are.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(BackupError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name if it is `digest`, durably; removes it otherwise.
    pub(crate) fn publish(
        self,
        digest: &Digest,
        size: u64,
        target: &Path,
    ) -> Result<(), BackupError> {
        let Self { file, path, hasher, written } = self;
        let actual = hasher.finish();
        if actual != *digest || written != size {
            drop(file);
            fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
            let reason = format!("{written} bytes of {size} arrived, with digest {actual}");
            return Err(BackupError::damaged(digest.to_string(), reason));
        }
        sync_file(&file, &path);
        let directory = target.parent().unwrap_or(target);
        create_dir_durable(directory)?;
        fs::rename(&path, target).map_err(BackupError::io("rename to", target))?;
        Ok(sync_dir(directory)?)
    }
}

/// Copies a file to `target` through the temporary name `temporary`; it must be `digest`.
pub(crate) fn copy_verified(
    mut source: impl Read,
    temporary: &Path,
    target: &Path,
    digest: &Digest,
    size: u64,
    mut progress: impl FnMut(u64),
) -> Result<(), BackupError> {
    let mut incoming = Incoming::create(temporary, digest.algorithm())?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = source.read(&mut buffer).map_err(BackupError::io("read into", target))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        incoming.write(bytes)?;
        progress(read as u64);
    }
    incoming.publish(digest, size, target)
}

/// Size and SHA-256 of a file.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, Digest)> {
    hash_file_as(path, Algorithm::Sha256)
}

/// Size and digest of a file.
pub(crate) fn hash_file_as(path: &Path, algorithm: Algorithm) -> io::Result<(u64, Digest)> {
    let mut hasher = DigestHasher::new(algorithm);
    let size = read_all(&mut File::open(path)?, |bytes| hasher.update(bytes))?;
    Ok((size, hasher.finish()))
}

fn read_all(file: &mut File, mut visit: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        visit(bytes);
        size += read as u64;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_right_bytes_get_a_name_and_an_interrupted_file_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (temporary, target) = (directory.path().join("t"), directory.path().join("a/b/c"));
        let digest = Digest::of(Algorithm::Sha256, b"hello world");
        let mut first = Incoming::create(&temporary, Algorithm::Sha256).unwrap();
        first.write(b"hello ").unwrap();
        drop(first);
        let mut second = Incoming::resume(&temporary, Algorithm::Sha256).unwrap();
        assert_eq!(second.written(), 6);
        second.write(b"world").unwrap();
        second.publish(&digest, 11, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"hello world");

        let mut wrong = Incoming::create(&temporary, Algorithm::Sha256).unwrap();
        wrong.write(b"hello_world").unwrap();
        let other = directory.path().join("other");
        assert!(matches!(wrong.publish(&digest, 11, &other), Err(BackupError::Damaged { .. })));
        assert!(!other.exists() && !temporary.exists());
    }
}
