//! Which files this process has seen to be right, so that a range of them may be served unhashed.

use std::collections::{HashMap, VecDeque};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Digest;

/// The most files remembered; the oldest is forgotten and verified again when needed.
const VERIFIED_MAX: usize = 65_536;

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
    files: HashMap<Digest, FileIdentity>,
    order: VecDeque<Digest>,
}

impl Verified {
    pub(super) fn contains(&self, digest: &Digest, identity: &FileIdentity) -> bool {
        self.lock().files.get(digest) == Some(identity)
    }

    pub(super) fn insert(&self, digest: &Digest, identity: FileIdentity) {
        let mut inner = self.lock();
        if inner.files.insert(digest.clone(), identity).is_none() {
            inner.order.push_back(digest.clone());
        }
        while inner.order.len() > VERIFIED_MAX {
            if let Some(oldest) = inner.order.pop_front() {
                inner.files.remove(&oldest);
            }
        }
    }

    pub(super) fn remove(&self, digest: &Digest) {
        // Rare (a deletion or damage), so a walk over the queue is fine.
        let mut inner = self.lock();
        if inner.files.remove(digest).is_some() {
            inner.order.retain(|kept| kept != digest);
        }
    }

    /// The set is a cache: one left half-written by a panic is at worst too small.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
