//! Mutual exclusion by digest, in bounded memory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::Digest;

/// Two digests share a lock once in so many pairs, which costs a wait and nothing else.
const STRIPES: usize = 256;

#[derive(Debug)]
pub(super) struct DigestLocks {
    stripes: Vec<Arc<Mutex<()>>>,
}

/// Owned, so that it can move into the blocking task that does the work: a caller that goes away must
/// not release the lock before that work is done.
pub(super) type DigestGuard = OwnedMutexGuard<()>;

impl DigestLocks {
    pub(super) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Arc::default()).collect() }
    }

    pub(super) async fn lock(&self, digest: &Digest) -> DigestGuard {
        let mut hasher = DefaultHasher::new();
        digest.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or_default();
        let stripe = self.stripes.get(index).cloned().unwrap_or_default();
        stripe.lock_owned().await
    }
}
