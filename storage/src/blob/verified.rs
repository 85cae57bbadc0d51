//! Which files this process has seen to be right, and the sums of their blocks: with these any part of such a file can be
//! proved without the rest.

use std::collections::{HashMap, VecDeque};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sums::BlockSums;
use crate::Digest;

/// The most files remembered; the oldest is forgotten and verified again when needed.
const VERIFIED_MAX: usize = 65_536;

/// The most blocks whose sums are remembered, 16 bytes each: those of 256 GiB.
const BLOCKS_MAX: usize = 1 << 20;

/// Tells one state of a file from another: a file that is replaced or written to is not the one verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether both are the same file, written to or not.
    pub(super) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

#[derive(Debug, Default)]
pub(super) struct Verified {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: HashMap<Digest, (FileIdentity, Arc<BlockSums>)>,
    order: VecDeque<Digest>,
    /// The blocks of all of them.
    blocks: usize,
}

impl Verified {
    /// Whether this file, as it is now, was found right.
    pub(super) fn contains(&self, digest: &Digest, identity: &FileIdentity) -> bool {
        self.sums(digest, identity).is_some()
    }

    /// The sums of its blocks, if this file, as it is now, was found right.
    pub(super) fn sums(&self, digest: &Digest, identity: &FileIdentity) -> Option<Arc<BlockSums>> {
        let inner = self.lock();
        let (known, sums) = inner.files.get(digest)?;
        (known == identity).then(|| Arc::clone(sums))
    }

    /// This file was found right, and its blocks have these sums.
    pub(super) fn insert(&self, digest: &Digest, identity: FileIdentity, sums: Arc<BlockSums>) {
        let mut inner = self.lock();
        inner.blocks += sums.len();
        match inner.files.insert(digest.clone(), (identity, sums)) {
            Some((_, former)) => inner.blocks -= former.len(),
            None => inner.order.push_back(digest.clone()),
        }
        // One is kept however large it is: else each range of it would read it whole.
        while inner.order.len() > 1
            && (inner.order.len() > VERIFIED_MAX || inner.blocks > BLOCKS_MAX)
        {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.forget(&oldest);
        }
    }

    /// The file was given another time, and its bytes were not touched.
    pub(super) fn stamped(&self, digest: &Digest, before: &FileIdentity, after: FileIdentity) {
        if let Some((known, _)) = self.lock().files.get_mut(digest)
            && known == before
        {
            *known = after;
        }
    }

    pub(super) fn remove(&self, digest: &Digest) {
        // Rare (a deletion or damage), so a walk over the queue is fine.
        let mut inner = self.lock();
        if inner.forget(digest) {
            inner.order.retain(|kept| kept != digest);
        }
    }

    /// The set is a cache: one left half-written by a panic is at worst too small.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, digest: &Digest) -> bool {
        let Some((_, sums)) = self.files.remove(digest) else { return false };
        self.blocks = self.blocks.saturating_sub(sums.len());
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Algorithm;

    fn identity(inode: u64) -> FileIdentity {
        FileIdentity { device: 1, inode, size: 9, modified: (1, 2), changed: (3, 4) }
    }

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    fn insert(verified: &Verified, number: usize, blocks: usize) {
        verified.insert(&digest(number), identity(1), Arc::new(BlockSums::of_nothing(blocks)));
    }

    #[test]
    fn a_file_that_was_written_to_is_another_one_unless_only_its_time_was_set() {
        let verified = Verified::default();
        insert(&verified, 1, 3);
        assert!(verified.contains(&digest(1), &identity(1)));
        assert!(verified.sums(&digest(1), &identity(2)).is_none());
        // Not the one that is known.
        verified.stamped(&digest(1), &identity(2), identity(3));
        assert!(verified.contains(&digest(1), &identity(1)));
        verified.stamped(&digest(1), &identity(1), identity(3));
        assert_eq!(verified.sums(&digest(1), &identity(3)).unwrap().len(), 3);
        verified.remove(&digest(1));
        assert!(!verified.contains(&digest(1), &identity(3)));
    }

    #[test]
    fn memory_is_bounded_by_files_and_by_blocks() {
        let verified = Verified::default();
        for number in 0..VERIFIED_MAX + 2 {
            insert(&verified, number, 1);
        }
        assert!(!verified.contains(&digest(1), &identity(1)));
        assert!(verified.contains(&digest(2), &identity(1)));

        // All others make way for a large one, and a larger one stays as the only one.
        let large = VERIFIED_MAX + 7;
        insert(&verified, large, BLOCKS_MAX);
        insert(&verified, large, BLOCKS_MAX + 1);
        assert!(verified.contains(&digest(large), &identity(1)));
        insert(&verified, 5, 1);
        assert!(!verified.contains(&digest(large), &identity(1)));
        let kept = || {
            let inner = verified.lock();
            (inner.files.len(), inner.order.len(), inner.blocks)
        };
        assert_eq!(kept(), (1, 1, 1));
        verified.remove(&digest(5));
        assert_eq!(kept(), (0, 0, 0));
    }
}
