//! Tells the worker that removes files which blobs the group has forgotten.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tercet_storage::Digest;
use tokio::sync::Notify;

/// Digests that wait for the worker; what is beyond is found by comparing the disk with the state.
const WAITING_MAX: usize = 16_384;

/// What is known of the blobs that were collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collected {
    /// These were.
    Blobs(Vec<Digest>),
    /// Some were, and nobody knows which: they did not fit, or went with a snapshot.
    Unknown,
}

/// A bounded queue from apply to one worker. Apply never waits for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CollectedFeed {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    digests: VecDeque<Digest>,
    overflowed: bool,
}

impl CollectedFeed {
    pub(super) fn push(&self, digests: Vec<Digest>) {
        if digests.is_empty() {
            return;
        }
        {
            let mut waiting = self.lock();
            let room = WAITING_MAX.saturating_sub(waiting.digests.len());
            waiting.overflowed |= digests.len() > room;
            waiting.digests.extend(digests.into_iter().take(room));
        }
        self.inner.news.notify_one();
    }

    /// Blobs were collected that never passed through here.
    pub(super) fn overflow(&self) {
        self.lock().overflowed = true;
        self.inner.news.notify_one();
    }

    /// What has come since the last call; waits until there is something.
    pub(crate) async fn next(&self) -> Collected {
        loop {
            // A notice that comes between the look and the wait is kept for one waiter.
            if let Some(collected) = self.take() {
                return collected;
            }
            self.inner.news.notified().await;
        }
    }

    fn take(&self) -> Option<Collected> {
        let mut waiting = self.lock();
        if !waiting.digests.is_empty() {
            return Some(Collected::Blobs(waiting.digests.drain(..).collect()));
        }
        std::mem::take(&mut waiting.overflowed).then_some(Collected::Unknown)
    }

    /// Each change is one statement, so the queue is whole also after a panic.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::Algorithm;

    use super::*;

    fn digest(n: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &n.to_be_bytes())
    }

    #[tokio::test]
    async fn what_does_not_fit_is_told_as_unknown() {
        let feed = CollectedFeed::default();
        feed.push((0..WAITING_MAX + 1).map(digest).collect());
        let Collected::Blobs(first) = feed.next().await else { panic!("nothing fitted") };
        assert_eq!(first.len(), WAITING_MAX);
        assert_eq!(feed.next().await, Collected::Unknown);
        feed.push(vec![digest(1)]);
        assert_eq!(feed.next().await, Collected::Blobs(vec![digest(1)]));
    }

    #[tokio::test]
    async fn a_waiter_wakes_up() {
        let feed = CollectedFeed::default();
        let waiter = tokio::spawn({
            let feed = feed.clone();
            async move { feed.next().await }
        });
        tokio::task::yield_now().await;
        feed.overflow();
        assert_eq!(waiter.await.unwrap(), Collected::Unknown);
    }
}
