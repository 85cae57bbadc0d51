//! Reads a blob only to see whether it is still right.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};

use super::pending::{Lent, blocking};
use super::quarantine::quarantine;
use super::store::{BlobStore, Inner};
use super::sums::Examination;
use super::verified::FileIdentity;
use crate::Digest;
use crate::error::StorageError;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// One blob that is being read from the disk, chunk by chunk, at its reader's pace.
#[derive(Debug)]
pub struct Inspection {
    store: Arc<Inner>,
    digest: Digest,
    identity: FileIdentity,
    reading: Lent<Reading>,
}

#[derive(Debug)]
struct Reading {
    file: File,
    path: PathBuf,
    examination: Examination,
    offset: u64,
    size: u64,
    buffer: Vec<u8>,
}

/// What an inspection found.
#[derive(Debug)]
pub enum Verdict {
    /// The bytes are those of the digest.
    Good {
        /// How many.
        size: u64,
    },
    /// They are not; the file is in quarantine.
    Corrupt {
        /// What was wrong.
        reason: String,
    },
}

impl BlobStore {
    /// Begins to read a published blob from the disk itself, past the page cache as far as the system lets
    /// it: bytes that are in memory say nothing about the disk.
    pub async fn inspect(&self, digest: &Digest) -> Result<Option<Inspection>, StorageError> {
        let store = Arc::clone(self.inner());
        let path = store.dir.blob(digest);
        let opened = blocking("open blob", move || {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(StorageError::io("open", &path)(error)),
            };
            let metadata = file.metadata().map_err(StorageError::io("stat", &path))?;
            forget_cached(&file);
            Ok(metadata
                .is_file()
                .then(|| (file, path, FileIdentity::of(&metadata), metadata.len())))
        })
        .await?;
        let Some((file, path, identity, size)) = opened else { return Ok(None) };
        let reading = Reading {
            file,
            path,
            examination: Examination::new(digest.algorithm()),
            offset: 0,
            size,
            buffer: vec![0; CHUNK_BYTES],
        };
        let digest = digest.clone();
        Ok(Some(Inspection { store, digest, identity, reading: Lent::new(reading) }))
    }
}

impl Inspection {
    /// Reads on. Answers how many bytes it read; 0 at the end of the file.
    ///
    /// # Errors
    /// When the disk does not give them. The file is left where it is: a read that fails says nothing about
    /// the bytes, and a copy from elsewhere can take its place.
    pub async fn advance(&mut self) -> Result<usize, StorageError> {
        let read = self.reading.run("scrub blob", Reading::advance).await;
        if read.is_err() {
            // A copy that comes to replace it must not be taken for superfluous.
            self.store.verified.remove(&self.digest);
        }
        read
    }

    /// Judges what was read, all of it. A wrong file goes into quarantine, unless another took its place
    /// meanwhile.
    ///
    /// # Errors
    /// When the file cannot be looked at, or cannot be moved.
    pub async fn verdict(self) -> Result<Verdict, StorageError> {
        let Self { store, digest, identity, reading } = self;
        let reading = reading.take("scrub blob").await?;
        let (size, offset) = (reading.size, reading.offset);
        let ((actual, sums), after) = blocking("scrub blob", move || {
            let metadata = reading.file.metadata();
            let after = metadata.map_err(StorageError::io("stat", &reading.path))?;
            forget_cached(&reading.file);
            Ok((reading.examination.finish(), FileIdentity::of(&after)))
        })
        .await?;
        if actual == digest {
            if after == identity {
                store.verified.insert(&digest, identity, Arc::new(sums));
            }
            return Ok(Verdict::Good { size });
        }
        let reason = if offset == size {
            format!("scrub: its content has digest {actual}")
        } else {
            format!("scrub: it ended after {offset} of {size} bytes")
        };
        quarantine(&store, &digest, Some(identity), &reason).await?;
        Ok(Verdict::Corrupt { reason })
    }
}

impl Reading {
    fn advance(&mut self) -> Result<usize, StorageError> {
        let read = loop {
            match self.file.read_at(&mut self.buffer, self.offset) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.map_err(StorageError::io("read", &self.path))?,
            }
        };
        self.examination.update(self.buffer.get(..read).unwrap_or_default());
        self.offset += read as u64;
        Ok(read)
    }
}

/// Advice only: a file system that ignores it makes the scrub weaker and nothing wrong.
fn forget_cached(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}
