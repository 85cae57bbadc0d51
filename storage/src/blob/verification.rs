//! The first reading of a file, for everybody who reads it meanwhile.
//!
//! When five hundred nodes pull one image after a restart, each of its blobs is hashed once. Whoever needs the next
//! block first reads and hashes it and notes its sum; all others prove what they read by the sums. Nobody waits for a client that
//! reads slowly: who gets ahead of it goes on hashing where it stopped.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::buffers::Buffer;
use super::pending::blocking;
use super::store::Inner;
use super::sums::{BLOCK_BYTES, BlockSums, Examination, sum};
use super::verified::{FileIdentity, Verified};
use crate::error::StorageError;
use crate::planted::{PlantedBug, is_planted};
use crate::{Digest, DigestHasher};

/// Blocks that are hashed for a range before somebody else has a turn.
const BLOCKS_AT_ONCE: usize = 16;

/// An open file of the store, as it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenBlob {
    pub(super) digest: Digest,
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) identity: FileIdentity,
    pub(super) size: u64,
}

impl OpenBlob {
    /// The block in which byte `at` is, and its number.
    pub(super) fn block(&self, at: u64) -> (u64, Range<u64>) {
        let index = at / BLOCK_BYTES as u64;
        let start = index * BLOCK_BYTES as u64;
        (index, start..self.size.min(start.saturating_add(BLOCK_BYTES as u64)))
    }

    /// Reads the bytes of `block`, or fewer at the end of the file, and answers how many.
    pub(super) fn read(
        &self,
        block: &Range<u64>,
        buffer: &mut Buffer,
    ) -> Result<usize, StorageError> {
        let wanted = buffer.first(length(block));
        let mut filled = 0;
        while let Some(rest) = wanted.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, block.start + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StorageError::io("read", &self.path)(error)),
            }
        }
        Ok(filled)
    }
}

/// Of a part of a block.
pub(super) fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX).min(BLOCK_BYTES)
}

/// All files that are being read for the first time.
#[derive(Debug, Default)]
pub(super) struct Verifications(Mutex<HashMap<Digest, Weak<Verification>>>);

impl Verifications {
    /// The one of this file, which may be somebody else's.
    pub(super) fn join(&self, blob: &Arc<OpenBlob>) -> Arc<Verification> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = running.get(&blob.digest).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.is_of(&blob.identity)) {
            return known;
        }
        let new = Arc::new(Verification::new(Arc::clone(blob)));
        running.retain(|_, known| known.strong_count() > 0);
        running.insert(blob.digest.clone(), Arc::downgrade(&new));
        new
    }
}

/// The first reading of one file.
pub(super) struct Verification {
    blob: Arc<OpenBlob>,
    so_far: Mutex<SoFar>,
    /// Who has it reads the next block. What has seen all blocks before; gone when the end was reached.
    turn: Arc<Turn<Option<Box<Examination>>>>,
}

#[derive(Default)]
struct SoFar {
    /// Of the blocks before the next one. The last one of the file is here only if the digest is right.
    sums: Vec<u128>,
    /// What was found at the end: the sums of all blocks, or why the file is wrong.
    end: Option<Result<Arc<BlockSums>, String>>,
}

/// The right to read the next block.
pub(super) type MyTurn = OwnedMutexGuard<Option<Box<Examination>>>;

/// What a step came to.
pub(super) enum Step {
    /// The next block, in the buffer.
    Block,
    /// The file is not what it must be. With the hash over all before, unless bytes before may be wrong.
    Corrupt(String, Option<Box<DigestHasher>>),
    /// The disk did not give the bytes. With the hash over all before.
    Failed(StorageError, Box<DigestHasher>),
}

impl Verification {
    fn new(blob: Arc<OpenBlob>) -> Self {
        let examination = Box::new(Examination::new(blob.digest.algorithm()));
        let turn = Arc::new(Turn::new(Some(examination)));
        Self { blob, so_far: Mutex::default(), turn }
    }

    /// Whether it is about this file, and has not found it wrong.
    fn is_of(&self, identity: &FileIdentity) -> bool {
        self.blob.identity == *identity && !matches!(self.so_far().end, Some(Err(_)))
    }

    /// Whether `bytes` are known to be those of block `index`.
    pub(super) fn prove(&self, index: u64, bytes: &[u8]) -> bool {
        let known =
            usize::try_from(index).ok().and_then(|index| self.so_far().sums.get(index).copied());
        known == Some(sum(bytes))
    }

    /// Whether block `index` can be proved.
    pub(super) fn knows(&self, index: u64) -> bool {
        usize::try_from(index).is_ok_and(|index| index < self.so_far().sums.len())
    }

    /// Whether the blocks that `examination` has seen are those that were read here.
    pub(super) fn begins_with(&self, examination: &Examination) -> bool {
        examination.whole_blocks().is_some_and(|sums| self.so_far().sums.starts_with(sums))
    }

    /// Why the file is wrong, if that was found.
    pub(super) fn wrong(&self) -> Option<String> {
        self.so_far().end.as_ref().and_then(|end| end.as_ref().err().cloned())
    }

    /// Waits until nobody else reads.
    pub(super) async fn turn(&self) -> MyTurn {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Reads the next block for all, into `buffer`.
    pub(super) fn step(&self, turn: &mut MyTurn, buffer: &mut Buffer, verified: &Verified) -> Step {
        let Some(examination) = turn.as_mut() else {
            let reason = self.wrong().unwrap_or_else(|| "it has no such block".to_owned());
            return Step::Corrupt(reason, None);
        };
        let (_, block) = self.blob.block(examination.seen());
        match self.blob.read(&block, buffer) {
            Err(error) => return Step::Failed(error, Box::new(examination.hasher().clone())),
            Ok(read) if read != length(&block) => {
                let hasher = Some(Box::new(examination.hasher().clone()));
                return Step::Corrupt("it was cut while it was read".to_owned(), hasher);
            }
            Ok(read) => examination.update(buffer.first(read)),
        }
        if block.end < self.blob.size {
            self.so_far().sums.extend(examination.whole_blocks().and_then(<[u128]>::last));
            return Step::Block;
        }
        match self.end(turn, verified) {
            Ok(_) => Step::Block,
            // Which bytes are wrong is not known; only of a file of one block have none been handed out.
            Err(reason) => {
                let untouched = || Box::new(DigestHasher::new(self.blob.digest.algorithm()));
                Step::Corrupt(reason, (block.start == 0).then(untouched))
            }
        }
    }

    /// All blocks were read.
    fn end(&self, turn: &mut MyTurn, verified: &Verified) -> Result<Arc<BlockSums>, String> {
        let Some(examination) = turn.take() else { return Err("it was read already".to_owned()) };
        let OpenBlob { digest, file, identity, .. } = &*self.blob;
        let (actual, sums) = examination.finish();
        let sums = Arc::new(sums);
        let end = match actual == *digest || is_planted(PlantedBug::SkipReadCheck) {
            true => Ok(Arc::clone(&sums)),
            false => Err(format!("its content has digest {actual}")),
        };
        // Written to while it was read: what was verified may not be what is there now.
        let unchanged = file.metadata().is_ok_and(|after| FileIdentity::of(&after) == *identity);
        if end.is_ok() && unchanged {
            verified.insert(digest, *identity, Arc::clone(&sums));
        }
        let mut so_far = self.so_far();
        if end.is_ok() {
            so_far.sums = sums.all().to_vec();
        }
        so_far.end = Some(end.clone());
        end
    }

    /// Reads to the end, whoever else reads too.
    ///
    /// # Errors
    /// In the inner result why the file is wrong.
    pub(super) async fn complete(
        self: &Arc<Self>,
        store: &Arc<Inner>,
    ) -> Result<Result<Arc<BlockSums>, String>, StorageError> {
        loop {
            let mut turn = self.turn().await;
            if let Some(end) = &self.so_far().end {
                return Ok(end.clone());
            }
            let (verification, store) = (Arc::clone(self), Arc::clone(store));
            // The turn goes along: if the one who asked gives up waiting, others go on where these blocks end.
            let wrong = blocking("verify blob", move || verification.read_on(&mut turn, &store));
            if let Some(reason) = wrong.await? {
                return Ok(Err(reason));
            }
        }
    }

    /// Some blocks more. Answers why the file is wrong, if it is.
    fn read_on(&self, turn: &mut MyTurn, store: &Inner) -> Result<Option<String>, StorageError> {
        if self.blob.size == 0 {
            return Ok(self.end(turn, &store.verified).err());
        }
        let mut buffer = store.buffers.take();
        for _ in 0..BLOCKS_AT_ONCE {
            if turn.is_none() {
                break;
            }
            match self.step(turn, &mut buffer, &store.verified) {
                Step::Block => {}
                Step::Corrupt(reason, _) => return Ok(Some(reason)),
                Step::Failed(error, _) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Sums and an end have no half-written state that a panic could leave.
    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("digest", &self.blob.digest)
            .field("blocks", &self.so_far().sums.len())
            .finish_non_exhaustive()
    }
}
