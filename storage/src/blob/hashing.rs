//! Hashes a piece of content while it is written.
//!
//! A disk takes about as long for a piece as SHA-256: one after the other takes twice as long as both at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::DigestHasher;

/// Of fewer bytes the hash takes no longer than to wake a thread up for it.
const ASIDE_FROM_BYTES: usize = 128 * 1024;

/// Pieces that are hashed by another thread now.
static ASIDE: AtomicUsize = AtomicUsize::new(0);

/// Never more of them than there are cores, since beyond nothing is gained; and never more than this. Each keeps a thread
/// waiting that began it, and where all threads wait, none is left to hash: a runtime has 128 or more for work that blocks.
const ASIDE_MAX: usize = 16;

/// To ask the system each time would be a dozen system calls.
static CORES: OnceLock<usize> = OnceLock::new();

/// A hash that may be under way.
pub(super) struct Hashing {
    before: DigestHasher,
    chunk: Bytes,
    aside: Option<(JoinHandle<DigestHasher>, Handle)>,
}

impl Hashing {
    /// Begins to hash `chunk` after what `before` has seen. Must be called where waiting is allowed.
    pub(super) fn begin(before: &DigestHasher, chunk: &Bytes) -> Self {
        let (before, chunk) = (before.clone(), chunk.clone());
        let aside = Handle::try_current()
            .ok()
            .filter(|_| chunk.len() >= ASIDE_FROM_BYTES)
            .and_then(|runtime| Some((Place::take()?, runtime)))
            .map(|(place, runtime)| {
                let (mut hasher, chunk) = (before.clone(), chunk.clone());
                let task = runtime.spawn_blocking(move || {
                    let _place = place;
                    hasher.update(&chunk);
                    hasher
                });
                (task, runtime)
            });
        Self { before, chunk, aside }
    }

    /// The hash over all of it.
    pub(super) fn end(self) -> DigestHasher {
        let Self { mut before, chunk, aside } = self;
        // A task that was never run, because the runtime ends, is no reason to have no hash.
        if let Some(hasher) = aside.and_then(|(task, runtime)| runtime.block_on(task).ok()) {
            return hasher;
        }
        before.update(&chunk);
        before
    }
}

/// One of [`ASIDE`], given back when it is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let cores = *CORES.get_or_init(|| available_parallelism().map_or(1, usize::from));
        let most = cores.min(ASIDE_MAX);
        let taken = ASIDE.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < most).then_some(taken + 1)
        });
        // Made only where one was taken: whatever is made is given back.
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        ASIDE.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Algorithm, Digest};

    fn hash_in_two(first: &Bytes, second: &Bytes) -> Digest {
        let hasher = DigestHasher::new(Algorithm::Sha256);
        let hasher = Hashing::begin(&hasher, first).end();
        // One that was begun in vain changes nothing.
        drop(Hashing::begin(&hasher, first));
        Hashing::begin(&hasher, second).end().finish()
    }

    #[tokio::test]
    async fn the_hash_is_the_same_wherever_it_is_made() {
        let content = Bytes::from(vec![7; 3 * ASIDE_FROM_BYTES]);
        let (first, second) =
            (content.slice(..2 * ASIDE_FROM_BYTES), content.slice(2 * ASIDE_FROM_BYTES..));
        let wanted = Digest::of(Algorithm::Sha256, &content);
        let there = (first.clone(), second.clone());
        let aside = tokio::task::spawn_blocking(move || hash_in_two(&there.0, &there.1));
        assert_eq!(aside.await.unwrap(), wanted);
        let outside = std::thread::spawn(move || hash_in_two(&first, &second));
        assert_eq!(outside.join().unwrap(), wanted);
    }

    #[tokio::test]
    async fn many_at_once_do_not_wait_for_one_another() {
        let content = Bytes::from(vec![7; ASIDE_FROM_BYTES]);
        let tasks = (0..64).map(|_| {
            let content = content.clone();
            tokio::task::spawn_blocking(move || {
                hash_in_two(&content, &content);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        // Nobody has given back what he had not taken.
        let most = available_parallelism().map_or(1, usize::from);
        assert!(ASIDE.load(Ordering::Acquire) <= most);
    }
}
