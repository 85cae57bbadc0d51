//! Which files were published a moment ago, so that nobody takes them for ones that nobody needs.
//!
//! Between a publish and the command that makes the blob known, a file looks like an orphan. Its modification
//! time says when it was published and outlives the process; a pin says the same by the monotonic clock,
//! which no jump of the wall clock makes older.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Digest;

/// The most digests remembered. Of those beyond, the modification time alone speaks.
const PINS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Pins {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    since: HashMap<Digest, Instant>,
    /// In the order of their time. An entry whose time is not that of `since` has been renewed behind it.
    order: VecDeque<(Instant, Digest)>,
}

impl Pins {
    /// The digest is published, or found to be, now.
    pub(super) fn pin(&self, digest: &Digest) {
        self.pin_at(digest, Instant::now());
    }

    fn pin_at(&self, digest: &Digest, now: Instant) {
        let mut inner = self.lock();
        inner.since.insert(digest.clone(), now);
        inner.order.push_back((now, digest.clone()));
        while inner.order.len() > PINS_MAX {
            let Some((at, oldest)) = inner.order.pop_front() else { break };
            if inner.since.get(&oldest) == Some(&at) {
                inner.since.remove(&oldest);
            }
        }
    }

    /// How long ago the digest was published by this process, if that is known.
    pub(super) fn age(&self, digest: &Digest) -> Option<Duration> {
        self.lock().since.get(digest).map(Instant::elapsed)
    }

    /// Each pin is whole or absent, also after a panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::Algorithm;

    fn digest(n: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &n.to_be_bytes())
    }

    #[test]
    fn a_pin_that_is_renewed_outlives_older_ones() {
        let pins = Pins::default();
        pins.pin(&digest(0));
        pins.pin(&digest(1));
        pins.pin(&digest(0));
        for n in 2..PINS_MAX {
            pins.pin(&digest(n));
        }
        assert!(pins.age(&digest(0)).is_some(), "the older of its two entries fell out");
        pins.pin(&digest(PINS_MAX));
        assert!(pins.age(&digest(1)).is_none());
        assert!(pins.age(&digest(0)).is_some());
        assert!(pins.lock().order.len() <= PINS_MAX && pins.lock().since.len() <= PINS_MAX);
    }
}
