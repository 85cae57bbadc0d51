//! A file that content is appended to and hashed on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::SeekFrom;

use super::direct::{self, Direct};
use super::hashing::Hashing;
use super::space::{ReservedSpace, SpaceGate};
use super::writeback::Writeback;
use crate::error::StorageError;
use crate::{Algorithm, Digest, DigestHasher, failpoint};

/// How many bytes may pass between two looks at the volume for content whose size is not known.
const SPACE_CHECK_BYTES: u64 = 16 * 1024 * 1024;

/// Buffer for reading what is already on disk.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// The file's first `offset` bytes are exactly what `hasher` has seen, also after a write that failed.
#[derive(Debug)]
pub(super) struct Sink {
    file: Arc<File>,
    path: PathBuf,
    hasher: DigestHasher,
    /// Shared with the handle, which tells it to callers while the sink itself is in a blocking task.
    offset: Arc<AtomicU64>,
    gate: Arc<SpaceGate>,
    reserved: Option<ReservedSpace>,
    unchecked: u64,
    direct: Direct,
    writeback: Writeback,
}

impl Sink {
    /// A sink over a new, empty file.
    pub(super) fn create(
        path: PathBuf,
        algorithm: Algorithm,
        gate: Arc<SpaceGate>,
        reserved: Option<ReservedSpace>,
    ) -> Result<Self, StorageError> {
        let mut open = File::options();
        open.read(true).write(true).create_new(true);
        let file = open.open(&path).map_err(StorageError::io("create", &path))?;
        let (hasher, offset) = (DigestHasher::new(algorithm), Arc::default());
        Ok(Self::over(file, path, hasher, offset, gate, reserved))
    }

    /// A sink that continues a file, whose bytes are read again.
    pub(super) fn resume(
        path: PathBuf,
        algorithm: Algorithm,
        gate: Arc<SpaceGate>,
    ) -> Result<Self, StorageError> {
        let mut open = File::options();
        open.read(true).write(true);
        let file = open.open(&path).map_err(StorageError::io("open", &path))?;
        let mut hasher = DigestHasher::new(algorithm);
        let size = file.metadata().map_err(StorageError::io("stat", &path))?.len();
        let hashed = read_prefix(&file, &path, size, |bytes| hasher.update(bytes))?;
        let offset = Arc::new(AtomicU64::new(hashed));
        Ok(Self::over(file, path, hasher, offset, gate, None))
    }

    fn over(
        file: File,
        path: PathBuf,
        hasher: DigestHasher,
        offset: Arc<AtomicU64>,
        gate: Arc<SpaceGate>,
        reserved: Option<ReservedSpace>,
    ) -> Self {
        let (file, direct, writeback) = (Arc::new(file), Direct::default(), Writeback::default());
        Self { file, path, hasher, offset, gate, reserved, unchecked: 0, direct, writeback }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file was renamed, together with the directory it is in.
    pub(super) fn moved_to(&mut self, path: PathBuf) {
        self.path = path;
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    pub(super) fn shared_offset(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.offset)
    }

    /// Appends `chunk`: all of it, or an error and none of it. Must be called where waiting is allowed.
    pub(super) fn append(&mut self, chunk: &Bytes) -> Result<(), StorageError> {
        let length = chunk.len() as u64;
        if self.reserved.is_none() {
            self.unchecked += length;
            if self.unchecked >= SPACE_CHECK_BYTES {
                self.gate.check(length)?;
                self.unchecked = 0;
            }
        }
        let offset = self.offset();
        let hashing = Hashing::begin(&self.hasher, chunk);
        if let Err(error) = self.write(chunk, offset) {
            // What follows `offset` would be overwritten by the next chunk anyway, but must not be mistaken
            // for content when the upload is resumed after a restart.
            self.file.set_len(offset).map_err(StorageError::io("truncate", &self.path))?;
            return Err(self.write_error(error, length));
        }
        self.hasher = hashing.end();
        if let Some(reserved) = &mut self.reserved {
            reserved.written(length);
        }
        self.offset.store(offset + length, Ordering::Release);
        failpoint::hit("blob.after_write");
        Ok(())
    }

    /// Around the page cache where that is possible, else through it. In the order of the bytes: a process that dies here
    /// leaves no gap, which would be taken for content when the upload is resumed.
    fn write(&mut self, chunk: &[u8], offset: u64) -> io::Result<()> {
        let blocks = direct::blocks(offset, chunk.len());
        let first = blocks.start;
        self.write_through_cache(chunk.get(..first), offset)?;
        let blocks = chunk.get(blocks).unwrap_or_default();
        let done = first + self.direct.write(blocks, offset + first as u64, &self.file)?;
        failpoint::hit("blob.after_direct_write");
        self.write_through_cache(chunk.get(done..), offset + done as u64)
    }

    fn write_through_cache(&mut self, part: Option<&[u8]>, at: u64) -> io::Result<()> {
        let Some(part) = part.filter(|part| !part.is_empty()) else { return Ok(()) };
        self.file.write_all_at(part, at)?;
        self.writeback.wrote(part.len() as u64, &self.file, &self.path);
        Ok(())
    }

    /// Forgets everything after `offset`, which must have been reached.
    pub(super) fn truncate(&mut self, offset: u64) -> Result<(), StorageError> {
        if offset == self.offset() {
            return Ok(());
        }
        let mut hasher = DigestHasher::new(self.hasher.algorithm());
        read_prefix(&self.file, &self.path, offset, |bytes| hasher.update(bytes))?;
        self.file.set_len(offset).map_err(StorageError::io("truncate", &self.path))?;
        self.hasher = hasher;
        self.offset.store(offset, Ordering::Release);
        Ok(())
    }

    /// The digest of everything appended. Another algorithm than the running one reads the file again.
    pub(super) fn digest(&self, algorithm: Algorithm) -> Result<Digest, StorageError> {
        if algorithm == self.hasher.algorithm() {
            return Ok(self.hasher.clone().finish());
        }
        let mut hasher = DigestHasher::new(algorithm);
        read_prefix(&self.file, &self.path, self.offset(), |bytes| hasher.update(bytes))?;
        Ok(hasher.finish())
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn write_error(&self, error: std::io::Error, needed: u64) -> StorageError {
        let full = matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        // Ask again for the message's sake; "full" stands whatever the answer.
        match self.gate.check(needed) {
            Err(no_space) if full => no_space,
            _ => StorageError::io("write", &self.path)(error),
        }
    }
}

/// Cuts off what follows the first gap in the file at `path`. A power failure may leave one: the bytes after it were on the
/// disk already, those in it were not, and read as zeros.
pub(super) fn cut_at_gap(path: &Path) -> Result<(), StorageError> {
    let open = File::options().write(true).open(path);
    let file = open.map_err(StorageError::io("open", path))?;
    let size = file.metadata().map_err(StorageError::io("stat", path))?.len();
    // A file system that does not tell gaps has none to tell.
    let Ok(gap) = rustix::fs::seek(&file, SeekFrom::Hole(0)) else { return Ok(()) };
    if gap < size {
        tracing::warn!(path = %path.display(), gap, size, "a crash left a gap in an upload; it goes on from there");
        file.set_len(gap).map_err(StorageError::io("truncate", path))?;
    }
    Ok(())
}

/// Feeds the first `size` bytes of `file` to `take`. Returns how many there were.
pub(super) fn read_prefix(
    file: &File,
    path: &Path,
    size: u64,
    mut take: impl FnMut(&[u8]),
) -> Result<u64, StorageError> {
    let mut buffer = vec![0_u8; READ_BUFFER_BYTES];
    let mut at = 0;
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(usize::MAX).min(READ_BUFFER_BYTES);
        let slot = buffer.get_mut(..wanted).unwrap_or_default();
        let read = match file.read_at(slot, at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StorageError::io("read", path)(error)),
        };
        take(slot.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(at)
}
