//! Reads a blob so that wrong bytes are never served as right ones.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, Stream};
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

use super::buffers::Buffer;
use super::pending::blocking;
use super::quarantine::quarantine;
use super::sink::read_prefix;
use super::store::{BlobStore, Inner};
use super::sums::{BlockSums, Examination};
use super::verification::{MyTurn, OpenBlob, Step, Verification, length};
use super::verified::FileIdentity;
use crate::error::StorageError;
use crate::planted::{PlantedBug, is_planted};
use crate::{Digest, DigestHasher};

/// An open blob, or a range of one.
///
/// A file that this process has not yet read to its end is hashed on the way, once for all who read it at the time, and its
/// last block is withheld until the hash is right, so a corrupt one is cut short and never completed; a range of it is served
/// after the whole was read. Of a file that was found right before, and has not been written to since, each block must
/// have the sum that it had then.
pub struct BlobReader {
    store: Arc<Inner>,
    blob: Arc<OpenBlob>,
    range: Range<u64>,
    check: Check,
}

/// What proves the bytes before they leave.
#[derive(Clone)]
enum Check {
    /// The file was not found right yet.
    First(Arc<Verification>),
    /// The sums that its blocks had when it was.
    Sums(Arc<BlockSums>),
}

impl Check {
    /// Whether block `index` can be proved already.
    fn knows(&self, index: u64) -> bool {
        match self {
            Self::First(verification) => verification.knows(index),
            Self::Sums(_) => true,
        }
    }

    /// Whether `bytes` are known to be those of block `index`.
    fn prove(&self, index: u64, bytes: &[u8]) -> bool {
        match self {
            Self::First(verification) => verification.prove(index, bytes),
            Self::Sums(sums) => sums.prove(index, bytes),
        }
    }

    /// Whether the blocks that `examination` has seen are the first ones of the file.
    fn begins_with(&self, examination: &Examination) -> bool {
        match self {
            Self::First(verification) => verification.begins_with(examination),
            Self::Sums(sums) => sums.begin_with(examination),
        }
    }
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
        let Some(blob) = open(digest.clone(), path).await? else { return Ok(None) };
        let (size, blob) = (blob.size, Arc::new(blob));
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
        let check = match store.verified.sums(digest, &blob.identity) {
            Some(sums) => Check::Sums(sums),
            None => Check::First(store.verifications.join(&blob)),
        };
        let mut reader = BlobReader { store, blob, range, check };
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
        self.blob.size
    }

    /// The bytes that will be read.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The blob's digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.blob.digest
    }

    /// The content in chunks of up to 256 KiB. After an error the stream ends; the receiver must not treat what it
    /// has as complete.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, StorageError>> + Send + 'static {
        self.into_content().map_err(|broken| broken.error)
    }

    /// As [`BlobReader::into_stream`]; the error says how somebody who has the blob from elsewhere can go on.
    pub fn into_content(self) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        let at = self.range.start;
        let reading = Reading { reader: Arc::new(self), at, ahead: None };
        stream::try_unfold(reading, Reading::next)
    }

    fn is_whole(&self) -> bool {
        self.range == (0..self.blob.size)
    }

    /// Sees to it that the whole file was found right.
    async fn verify(&mut self) -> Result<(), StorageError> {
        if let Check::First(verification) = &self.check {
            self.check = match verification.complete(&self.store).await? {
                Ok(sums) => Check::Sums(sums),
                Err(reason) => return Err(self.condemn(reason).await),
            };
        }
        Ok(())
    }

    /// Quarantines the file and makes the error that says so.
    async fn condemn(&self, reason: String) -> StorageError {
        let OpenBlob { digest, identity, .. } = &*self.blob;
        if let Err(error) = quarantine(&self.store, digest, Some(*identity), &reason).await {
            tracing::error!(%digest, %error, "cannot quarantine a corrupt blob");
        }
        StorageError::CorruptBlob { digest: digest.clone(), reason }
    }

    /// The chunk from `at` on, if it is in memory and right.
    ///
    /// Never waits for the disk: some file systems cannot tell what is in memory, and have nothing there then.
    fn cached(&self, at: u64) -> Option<Bytes> {
        let (index, block) = self.blob.block(at);
        if !self.check.knows(index) {
            return None;
        }
        let mut buffer = self.store.buffers.take();
        let wanted = buffer.first(length(&block));
        let read = preadv2(
            &self.blob.file,
            &mut [IoSliceMut::new(wanted)],
            block.start,
            ReadWriteFlags::NOWAIT,
        );
        let whole = read.is_ok_and(|read| read == wanted.len());
        let right = whole && self.check.prove(index, wanted);
        right.then(|| self.cut(at, &block, buffer))
    }

    /// The bytes from `at` on that were asked for, out of the block that has them.
    fn cut(&self, at: u64, block: &Range<u64>, buffer: Buffer) -> Bytes {
        let wanted = at..block.end.min(self.range.end);
        let skipped = length(&(block.start..wanted.start));
        buffer.into_bytes(skipped..skipped + length(&wanted))
    }

    /// What is left from `at` on, of which nothing was handed out, while everything before it was right. `None` if what
    /// was right a moment ago cannot be read again: of a whole blob the rest goes on from the hash over it.
    fn rest(&self, at: u64) -> Option<Rest> {
        let range = at..self.range.end;
        if !self.is_whole() {
            return Some(Rest { range, hasher: None });
        }
        let OpenBlob { digest, file, path, .. } = &*self.blob;
        let mut examination = Examination::new(digest.algorithm());
        let read = read_prefix(file, path, at, |bytes| examination.update(bytes));
        let right = read.is_ok_and(|read| read == at) && self.check.begins_with(&examination);
        right.then(|| Rest { range, hasher: Some(Box::new(examination.hasher().clone())) })
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("blob", &self.blob)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// A read that could not go on.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub error: StorageError,
    /// What is left to read; `None` if bytes that were handed out already are wrong, or may be.
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

/// What reading a chunk came to.
enum Chunk {
    Good {
        bytes: Bytes,
        /// The disk was asked, and probably has to be for the next one too.
        waited: bool,
    },
    /// The file is not what it must be.
    Corrupt(String, Option<Rest>),
    /// The disk did not give the bytes, which says nothing about them.
    Failed(StorageError, Option<Rest>),
}

struct Reading {
    reader: Arc<BlobReader>,
    /// Where the chunk after the one being read starts.
    at: u64,
    ahead: Option<JoinHandle<Chunk>>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Broken> {
        if self.ahead.is_none() {
            if self.at >= self.reader.range.end {
                return Ok(None);
            }
            // Takes no longer than handing it to another thread.
            if let Some(bytes) = self.reader.cached(self.at) {
                self.at += bytes.len() as u64;
                return Ok(Some((bytes, self)));
            }
            self.read_ahead();
        }
        let Some(ahead) = self.ahead.take() else { return Ok(None) };
        let cancelled = || StorageError::Cancelled { operation: "read blob" };
        let chunk = ahead.await.map_err(|_| Broken { error: cancelled(), rest: None })?;
        match chunk {
            Chunk::Good { bytes, waited } => {
                if waited {
                    self.read_ahead();
                }
                Ok(Some((bytes, self)))
            }
            Chunk::Corrupt(reason, rest) => {
                Err(Broken { error: self.reader.condemn(reason).await, rest })
            }
            Chunk::Failed(error, rest) => {
                // A copy that comes to replace it must not be taken for superfluous.
                self.reader.store.verified.remove(self.reader.digest());
                let error = match error.is_unreadable() {
                    true => self.reader.condemn(error.to_string()).await,
                    false => error,
                };
                Err(Broken { error, rest })
            }
        }
    }

    /// Begins to read the next chunk while this one is on its way.
    fn read_ahead(&mut self) {
        let (at, end) = (self.at, self.reader.range.end);
        if at < end {
            self.at = self.reader.blob.block(at).1.end.min(end);
            self.ahead = Some(tokio::spawn(read_chunk(Arc::clone(&self.reader), at)));
        }
    }
}

async fn read_chunk(reader: Arc<BlobReader>, at: u64) -> Chunk {
    let turn = match &reader.check {
        Check::First(verification) => turn_for(verification, reader.blob.block(at).0).await,
        Check::Sums(_) => None,
    };
    let read = move || match turn {
        Some((verification, turn)) => read_for_all(&reader, &verification, turn, at),
        None => read_and_prove(&reader, at),
    };
    let cancelled = || Chunk::Failed(StorageError::Cancelled { operation: "read blob" }, None);
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| cancelled())
}

/// The turn to read block `index`, unless it can be proved already or by the time that others have had theirs.
async fn turn_for(
    verification: &Arc<Verification>,
    index: u64,
) -> Option<(Arc<Verification>, MyTurn)> {
    if verification.knows(index) {
        return None;
    }
    let turn = verification.turn().await;
    (!verification.knows(index)).then(|| (Arc::clone(verification), turn))
}

/// A block that was read before.
fn read_and_prove(reader: &BlobReader, at: u64) -> Chunk {
    if let Some(bytes) = reader.cached(at) {
        return Chunk::Good { bytes, waited: false };
    }
    let (index, block) = reader.blob.block(at);
    let mut buffer = reader.store.buffers.take();
    let read = match reader.blob.read(&block, &mut buffer) {
        Ok(read) => read,
        Err(error) => return Chunk::Failed(error, reader.rest(at)),
    };
    if read != length(&block) {
        return Chunk::Corrupt("it was cut after it was verified".to_owned(), reader.rest(at));
    }
    let right = reader.check.prove(index, buffer.first(read));
    if !right && !is_planted(PlantedBug::SkipReadCheck) {
        let Range { start, end } = block;
        let reason = format!("bytes {start} to {end} are not those that were verified");
        return Chunk::Corrupt(reason, reader.rest(at));
    }
    Chunk::Good { bytes: reader.cut(at, &block, buffer), waited: true }
}

/// The next block of a whole blob that nobody has read yet.
fn read_for_all(
    reader: &BlobReader,
    verification: &Verification,
    mut turn: MyTurn,
    at: u64,
) -> Chunk {
    let (_, block) = reader.blob.block(at);
    let mut buffer = reader.store.buffers.take();
    let rest = |hasher| Rest { range: at..reader.range.end, hasher: Some(hasher) };
    match verification.step(&mut turn, &mut buffer, &reader.store.verified) {
        Step::Block => Chunk::Good { bytes: reader.cut(at, &block, buffer), waited: true },
        Step::Corrupt(reason, hasher) => {
            // Nothing of it was handed out yet.
            let new = || Box::new(DigestHasher::new(reader.digest().algorithm()));
            let hasher = hasher.or_else(|| (at == 0).then(new));
            Chunk::Corrupt(reason, hasher.map(rest))
        }
        Step::Failed(error, hasher) => Chunk::Failed(error, Some(rest(hasher))),
    }
}

async fn open(digest: Digest, path: PathBuf) -> Result<Option<OpenBlob>, StorageError> {
    blocking("open blob", move || {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::io("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(StorageError::io("stat", &path))?;
        let (identity, size) = (FileIdentity::of(&metadata), metadata.len());
        Ok(metadata.is_file().then_some(OpenBlob { digest, file, path, identity, size }))
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::fs;
    use std::os::unix::fs::FileExt as _;

    use futures_util::StreamExt as _;
    use rustix::fs::{Advice, fadvise};

    use super::super::sums::BLOCK_BYTES;
    use super::*;
    use crate::{Algorithm, BlobStoreOptions};

    const LENGTH: usize = 4 * BLOCK_BYTES + 77;

    /// A store with one blob, which this process has read and found right.
    async fn store_with_known_blob() -> (tempfile::TempDir, BlobStore, Vec<u8>, Digest) {
        let root = tempfile::tempdir().unwrap();
        let options = BlobStoreOptions {
            root: root.path().to_owned(),
            refuse_percent: 100,
            headroom_bytes: 0,
        };
        let store = BlobStore::open(options).unwrap();
        let bytes: Vec<u8> = (0..LENGTH).map(|at| (at / 5 + at / 40_000) as u8).collect();
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let mut writer = store.writer(digest.clone(), None).await.unwrap();
        writer.append(bytes.clone().into()).await.unwrap();
        writer.finish().await.unwrap();
        let (read, ended) = drain(&store, &digest, None).await;
        assert!(ended.is_none() && read == bytes);
        (root, store, bytes, digest)
    }

    async fn drain(
        store: &BlobStore,
        digest: &Digest,
        range: Option<Range<u64>>,
    ) -> (Vec<u8>, Option<Broken>) {
        let reader = store.reader(digest, range).await.unwrap().unwrap();
        let mut content = std::pin::pin!(reader.into_content());
        let mut bytes = Vec::new();
        while let Some(chunk) = content.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(broken) => return (bytes, Some(broken)),
            }
        }
        (bytes, None)
    }

    /// Changes the file as a disk does: without a trace in its times.
    fn rot(store: &BlobStore, digest: &Digest, change: impl FnOnce(&File)) {
        let path = store.inner().dir.blob(digest);
        let before = FileIdentity::of(&fs::metadata(&path).unwrap());
        let file = File::options().write(true).open(&path).unwrap();
        change(&file);
        let after = FileIdentity::of(&file.metadata().unwrap());
        store.inner().verified.stamped(digest, &before, after);
        assert!(store.inner().verified.contains(digest, &after));
    }

    #[tokio::test]
    async fn a_block_that_rots_after_it_was_found_right_does_not_leave() {
        for block in 0..5 {
            let (_root, store, bytes, digest) = store_with_known_blob().await;
            let at = block * BLOCK_BYTES;
            rot(&store, &digest, |file| file.write_all_at(b"rot", at as u64 + 9).unwrap());
            let (read, broken) = drain(&store, &digest, None).await;
            let broken = broken.unwrap();
            assert!(matches!(broken.error, StorageError::CorruptBlob { .. }), "{broken:?}");
            assert!(read == bytes[..at], "all before it, and nothing of it");
            let rest = broken.rest.unwrap();
            assert_eq!(rest.range, at as u64..LENGTH as u64);
            let mut hasher = *rest.hasher.unwrap();
            hasher.update(&bytes[at..]);
            assert_eq!(hasher.finish(), digest, "somebody else's rest can be proved");
            assert_eq!(store.size_of(&digest).await.unwrap(), None, "it is in quarantine");
        }
    }

    /// As after a restart.
    async fn forgotten() -> (tempfile::TempDir, BlobStore, Vec<u8>, Digest) {
        let (root, store, bytes, digest) = store_with_known_blob().await;
        store.inner().verified.remove(&digest);
        (root, store, bytes, digest)
    }

    #[tokio::test]
    async fn who_is_slow_holds_up_nobody_who_reads_the_same_for_the_first_time() {
        let (_root, store, bytes, digest) = forgotten().await;
        let reader = store.reader(&digest, None).await.unwrap().unwrap();
        let mut slow = std::pin::pin!(reader.into_content());
        let mut got = slow.next().await.unwrap().unwrap().to_vec();
        let others = (0..8).map(|_| drain(&store, &digest, None));
        for (read, broken) in futures_util::future::join_all(others).await {
            assert!(broken.is_none() && read == bytes);
        }
        let (read, broken) = drain(&store, &digest, Some(5..LENGTH as u64)).await;
        assert!(broken.is_none() && read == bytes[5..]);
        while let Some(chunk) = slow.next().await {
            got.extend_from_slice(&chunk.unwrap());
        }
        assert!(got == bytes);
    }

    #[tokio::test]
    async fn all_who_read_at_the_same_time_rely_on_one_reading() {
        let (_root, store, bytes, digest) = forgotten().await;
        let readers = [store.reader(&digest, None).await, store.reader(&digest, None).await];
        let [first, second] = readers.map(|reader| reader.unwrap().unwrap().into_content());
        let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
        for _ in 0..2 {
            first.next().await.unwrap().unwrap();
        }
        // Other bytes than the first one has read.
        let path = store.inner().dir.blob(&digest);
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(b"rot", BLOCK_BYTES as u64).unwrap();
        assert!(second.next().await.unwrap().unwrap() == bytes[..BLOCK_BYTES]);
        let broken = second.next().await.unwrap().unwrap_err();
        assert_eq!(broken.rest.unwrap().range.start, BLOCK_BYTES as u64);
    }

    #[tokio::test]
    async fn the_last_block_of_a_wrong_file_leaves_to_nobody() {
        let (_root, store, bytes, digest) = forgotten().await;
        let path = store.inner().dir.blob(&digest);
        File::options().write(true).open(path).unwrap().write_all_at(b"rot", 9).unwrap();
        let readers = [store.reader(&digest, None).await, store.reader(&digest, None).await];
        for reader in readers {
            let mut content = std::pin::pin!(reader.unwrap().unwrap().into_content());
            let mut got = 0;
            let broken = loop {
                match content.next().await.unwrap() {
                    Ok(chunk) => got += chunk.len(),
                    Err(broken) => break broken,
                }
            };
            assert!(matches!(broken.error, StorageError::CorruptBlob { .. }), "{broken:?}");
            assert_eq!(got, bytes.len() / BLOCK_BYTES * BLOCK_BYTES);
            assert!(broken.rest.is_none(), "wrong bytes are out");
        }
        assert!(store.reader(&digest, None).await.unwrap().is_none(), "it is in quarantine");
    }

    #[tokio::test]
    async fn a_file_that_was_cut_after_it_was_found_right_ends_where_its_last_whole_block_does() {
        let (_root, store, bytes, digest) = store_with_known_blob().await;
        let reader = store.reader(&digest, None).await.unwrap().unwrap();
        rot(&store, &digest, |file| file.set_len(2 * BLOCK_BYTES as u64 + 1).unwrap());
        let mut content = std::pin::pin!(reader.into_content());
        for block in 0..2 {
            let chunk = content.next().await.unwrap().unwrap();
            assert!(chunk == bytes[block * BLOCK_BYTES..][..BLOCK_BYTES]);
        }
        let broken = content.next().await.unwrap().unwrap_err();
        assert_eq!(broken.rest.unwrap().range.start, 2 * BLOCK_BYTES as u64);
    }

    #[tokio::test]
    async fn a_range_is_proved_by_its_own_blocks() {
        let (_root, store, bytes, digest) = store_with_known_blob().await;
        rot(&store, &digest, |file| file.write_all_at(b"rot", 3 * BLOCK_BYTES as u64).unwrap());
        let range = 100..2 * BLOCK_BYTES + 5;
        let (read, broken) =
            drain(&store, &digest, Some(range.start as u64..range.end as u64)).await;
        assert!(broken.is_none() && read == bytes[range]);
        let start = 2 * BLOCK_BYTES + 3;
        let (read, broken) = drain(&store, &digest, Some(start as u64..LENGTH as u64)).await;
        assert!(read == bytes[start..3 * BLOCK_BYTES]);
        let rest = broken.unwrap().rest.unwrap();
        assert_eq!(rest.range, 3 * BLOCK_BYTES as u64..LENGTH as u64);
        assert!(rest.hasher.is_none());
    }

    #[tokio::test]
    async fn what_is_not_in_memory_comes_from_the_disk() {
        let (_root, store, bytes, digest) = store_with_known_blob().await;
        let file = File::open(store.inner().dir.blob(&digest)).unwrap();
        file.sync_all().unwrap();
        for range in [None, Some(7..LENGTH as u64 - 3)] {
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            let wanted = range.clone().unwrap_or(0..LENGTH as u64);
            let (read, broken) = drain(&store, &digest, range).await;
            assert!(broken.is_none());
            assert!(read == bytes[wanted.start as usize..wanted.end as usize]);
        }
    }
}
