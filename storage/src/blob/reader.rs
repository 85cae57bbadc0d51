//! Reads a blob so that wrong bytes are never served as right ones.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, Stream};
use tokio::task::JoinHandle;

use super::pending::blocking;
use super::quarantine::quarantine;
use super::sink::hash_prefix;
use super::store::{BlobStore, Inner};
use super::verified::FileIdentity;
use crate::error::StorageError;
use crate::planted::{PlantedBug, is_planted};
use crate::{Digest, DigestHasher};

/// Bytes read, and handed on, at once.
const CHUNK_BYTES: u64 = 256 * 1024;

/// An open blob, or a range of one.
///
/// A whole blob is hashed on the way and its last chunk is withheld until the hash is right, so a corrupt
/// one is cut short and never completed. A range is served only of a file that was verified whole by this
/// process and has not been written to since.
pub struct BlobReader {
    store: Arc<Inner>,
    digest: Digest,
    file: Arc<File>,
    path: PathBuf,
    identity: FileIdentity,
    size: u64,
    range: Range<u64>,
}

impl BlobStore {
    /// Opens a blob. `range` is in bytes, cut at the blob's end; one that starts there or later is
    /// [`StorageError::Range`]. A blob that turns out corrupt already here is quarantined.
    pub async fn reader(
        &self,
        digest: &Digest,
        range: Option<Range<u64>>,
    ) -> Result<Option<BlobReader>, StorageError> {
        let store = Arc::clone(self.inner());
        let path = store.dir.blob(digest);
        let Some((file, identity, size)) = open(path.clone()).await? else { return Ok(None) };
        let range = match range {
            None => 0..size,
            Some(range) if range.start >= size => {
                return Err(StorageError::Range {
                    digest: digest.clone(),
                    start: range.start,
                    size,
                });
            }
            Some(range) => range.start..range.end.clamp(range.start, size),
        };
        let reader = BlobReader {
            store,
            digest: digest.clone(),
            file: Arc::new(file),
            path,
            identity,
            size,
            range,
        };
        // A whole blob is verified as it streams, unless there is nothing whose end could be withheld.
        if !reader.is_whole() || size == 0 {
            reader.verify().await?;
        }
        Ok(Some(reader))
    }
}

impl BlobReader {
    /// The size in bytes of the whole blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes that will be read.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The blob's digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The content in chunks of up to 256 KiB, with one chunk read ahead. After an error the stream ends; the
    /// receiver must not treat what it has as complete.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static {
        self.into_content().map_err(|broken| broken.error)
    }

    /// As [`BlobReader::into_stream`]; the error says how somebody who has the blob from elsewhere can go on.
    pub fn into_content(self) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        let hasher = self.is_whole().then(|| Box::new(DigestHasher::new(self.digest.algorithm())));
        let at = self.range.start;
        let mut reading = Reading { reader: Arc::new(self), hasher, at, ahead: None };
        reading.read_ahead();
        stream::try_unfold(reading, Reading::next)
    }

    fn is_whole(&self) -> bool {
        self.range == (0..self.size)
    }

    /// Reads the whole file once per process, however many ranges are asked for.
    async fn verify(&self) -> Result<(), StorageError> {
        if self.store.verified.contains(&self.digest, &self.identity) {
            return Ok(());
        }
        let guard = self.store.verifying.lock(&self.digest).await;
        if self.store.verified.contains(&self.digest, &self.identity) {
            return Ok(());
        }
        let (file, path, size) = (Arc::clone(&self.file), self.path.clone(), self.size);
        let (store, digest, identity) =
            (Arc::clone(&self.store), self.digest.clone(), self.identity);
        let mut hasher = DigestHasher::new(self.digest.algorithm());
        let actual = blocking("verify blob", move || {
            let _guard = guard;
            hash_prefix(&file, &path, size, &mut hasher)?;
            let after = file.metadata().map_err(StorageError::io("stat", &path))?;
            let actual = hasher.finish();
            // Written to while it was read: what was verified may not be what is there now. Noted here, so
            // that it counts also when whoever asked has given up waiting.
            if actual == digest && FileIdentity::of(&after) == identity {
                store.verified.insert(&digest, identity);
            }
            Ok(actual)
        })
        .await?;
        if actual != self.digest {
            return Err(self.condemn(format!("its content has digest {actual}")).await);
        }
        Ok(())
    }

    /// Quarantines the file and makes the error that says so.
    async fn condemn(&self, reason: String) -> StorageError {
        if let Err(error) =
            quarantine(&self.store, &self.digest, Some(self.identity), &reason).await
        {
            tracing::error!(digest = %self.digest, %error, "cannot quarantine a corrupt blob");
        }
        StorageError::CorruptBlob { digest: self.digest.clone(), reason }
    }

    /// Reads the bytes of `range`, or fewer at the end of the file.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let length = usize::try_from(range.end - range.start).unwrap_or_default();
        let mut chunk = vec![0_u8; length];
        let mut filled = 0;
        while let Some(rest) = chunk.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, range.start + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StorageError::io("read", &self.path)(error)),
            }
        }
        chunk.truncate(filled);
        Ok(chunk)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// A read that could not go on.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub error: StorageError,
    /// What is left to read; `None` if bytes that were handed out already are wrong.
    pub rest: Option<Rest>,
}

/// What is left of a blob, or of a range of one, after a read that broke off.
pub struct Rest {
    /// The bytes that were not handed out.
    pub range: Range<u64>,
    /// Of a whole blob: the hash over everything before them.
    pub hasher: Option<Box<DigestHasher>>,
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("range", &self.range).finish_non_exhaustive()
    }
}

/// What a blocking read brings back.
enum Chunk {
    Good(Bytes, Option<Box<DigestHasher>>),
    /// The file is not what it must be.
    Corrupt(String, Option<Rest>),
    /// The disk did not give the bytes, which says nothing about them.
    Failed(StorageError, Rest),
}

struct Reading {
    reader: Arc<BlobReader>,
    hasher: Option<Box<DigestHasher>>,
    /// Where the chunk after the one being read starts.
    at: u64,
    ahead: Option<JoinHandle<Chunk>>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Broken> {
        let Some(ahead) = self.ahead.take() else { return Ok(None) };
        let chunk = ahead.await.map_err(|_| Broken {
            error: StorageError::Cancelled { operation: "read blob" },
            rest: None,
        })?;
        match chunk {
            Chunk::Good(bytes, hasher) => {
                self.hasher = hasher;
                self.read_ahead();
                Ok(Some((bytes, self)))
            }
            Chunk::Corrupt(reason, rest) => {
                Err(Broken { error: self.reader.condemn(reason).await, rest })
            }
            Chunk::Failed(error, rest) => {
                // A copy that comes to replace it must not be taken for superfluous.
                self.reader.store.verified.remove(&self.reader.digest);
                let error = match error.is_unreadable() {
                    true => self.reader.condemn(error.to_string()).await,
                    false => error,
                };
                Err(Broken { error, rest: Some(rest) })
            }
        }
    }

    fn read_ahead(&mut self) {
        let end = self.reader.range.end;
        if self.at >= end {
            return;
        }
        let range = self.at..end.min(self.at.saturating_add(CHUNK_BYTES));
        self.at = range.end;
        let reader = Arc::clone(&self.reader);
        let hasher = self.hasher.take();
        self.ahead = Some(tokio::task::spawn_blocking(move || read_chunk(&reader, range, hasher)));
    }
}

fn read_chunk(reader: &BlobReader, range: Range<u64>, hasher: Option<Box<DigestHasher>>) -> Chunk {
    let expected = range.end - range.start;
    let (start, last) = (range.start, range.end == reader.size);
    let rest = |hasher| Rest { range: start..reader.range.end, hasher };
    let chunk = match reader.read(range) {
        Ok(chunk) => chunk,
        Err(error) => return Chunk::Failed(error, rest(hasher)),
    };
    if chunk.len() as u64 != expected {
        return Chunk::Corrupt("it was cut while it was read".to_owned(), Some(rest(hasher)));
    }
    let Some(mut hasher) = hasher else { return Chunk::Good(chunk.into(), None) };
    hasher.update(&chunk);
    if !last {
        return Chunk::Good(chunk.into(), Some(hasher));
    }
    let actual = hasher.finish();
    if actual == reader.digest || is_planted(PlantedBug::SkipReadCheck) {
        reader.store.verified.insert(&reader.digest, reader.identity);
        return Chunk::Good(chunk.into(), None);
    }
    // Which bytes are wrong is not known; only of a blob of one chunk have none been handed out.
    let untouched =
        (start == 0).then(|| rest(Some(Box::new(DigestHasher::new(reader.digest.algorithm())))));
    Chunk::Corrupt(format!("its content has digest {actual}"), untouched)
}

async fn open(path: PathBuf) -> Result<Option<(File, FileIdentity, u64)>, StorageError> {
    blocking("open blob", move || {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(StorageError::io("stat", &path))?;
        Ok(metadata.is_file().then(|| (file, FileIdentity::of(&metadata), metadata.len())))
    })
    .await
}
