//! The keys that the cluster agreed on, as this replica sees them.

use std::time::{Duration, Instant};

use moka::sync::Cache;
use tercet_raft::{Consensus, Freshness};
use tercet_storage::TokenKey;
use tokio::sync::{Mutex, Semaphore};

/// Unknown key ids that are remembered.
const UNKNOWN_MAX: u64 = 1_024;
/// For how long. A key that is made later has an id that nobody can have guessed before.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Tokens with an unknown key that may wait for a look behind the read barrier.
const WAITING_MAX: usize = 64;
/// Shortest time between two such looks, however many ask.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Finds keys by their id.
pub struct Keyring {
    consensus: Consensus,
    unknown: Cache<String, ()>,
    looks: Looks,
}

impl Keyring {
    /// The keys of this group.
    #[must_use]
    pub fn new(consensus: Consensus) -> Self {
        Self {
            consensus,
            unknown: Cache::builder().max_capacity(UNKNOWN_MAX).time_to_live(UNKNOWN_FOR).build(),
            looks: Looks::new(),
        }
    }

    /// The `iss` of the cluster's tokens.
    pub(in crate::auth) fn issuer(&self) -> &str {
        &self.consensus.identity().cluster_id
    }

    /// The key that signs: the newest. `None` until a leader has made one.
    pub(in crate::auth) fn newest(&self) -> Result<Option<TokenKey>, KeyringError> {
        Ok(self.all()?.pop())
    }

    /// The key of that id. One that this replica has not heard of may have been made a moment ago by
    /// another: it is looked for once more behind the read barrier, together with all that are looked
    /// for at the same time.
    pub(in crate::auth) async fn find(&self, id: &str) -> Result<Option<TokenKey>, KeyringError> {
        if let Some(key) = self.local(id)? {
            return Ok(Some(key));
        }
        if self.unknown.contains_key(id) {
            return Ok(None);
        }
        let look = self.looks.share(async || self.consensus.read_barrier().await).await;
        if let Some(key) = self.local(id)? {
            return Ok(Some(key));
        }
        match look {
            Look::Taken(Freshness::Fresh) => {
                self.unknown.insert(id.to_owned(), ());
                Ok(None)
            }
            // It may exist all the same.
            Look::Taken(Freshness::Stale) => Err(KeyringError::NoLeader),
            Look::Refused => Err(KeyringError::Busy),
        }
    }

    fn local(&self, id: &str) -> Result<Option<TokenKey>, KeyringError> {
        Ok(self.all()?.into_iter().find(|key| key.id == id))
    }

    /// The newest last.
    fn all(&self) -> Result<Vec<TokenKey>, KeyringError> {
        let read = self.consensus.read(|meta| meta.token_keys());
        read.map_err(|error| error.to_string())
            .and_then(|keys| keys.map_err(|error| error.to_string()))
            .map_err(KeyringError::Unreadable)
    }
}

/// Why nobody knows whether a key exists.
#[derive(Debug, thiserror::Error)]
pub(in crate::auth) enum KeyringError {
    /// The state database is going away under a snapshot, or is damaged.
    #[error("cannot read the keys of tokens: {0}")]
    Unreadable(String),
    /// Another replica may have made it.
    #[error("no leader says whether the key of this token exists; try again")]
    NoLeader,
    /// Too many tokens with unknown keys are being looked at.
    #[error("too many tokens with unknown keys are being looked at; try again")]
    Busy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// One was taken that began after the question.
    Taken(Freshness),
    /// Too many ask.
    Refused,
}

/// Lets many askers share few looks.
struct Looks {
    /// When the last one that ended began, and what came of it.
    last: Mutex<Option<(Instant, Freshness)>>,
    waiting: Semaphore,
}

impl Looks {
    fn new() -> Self {
        Self { last: Mutex::new(None), waiting: Semaphore::new(WAITING_MAX) }
    }

    async fn share(&self, look: impl AsyncFnOnce() -> Freshness) -> Look {
        let arrived = Instant::now();
        let Ok(_place) = self.waiting.try_acquire() else { return Look::Refused };
        let mut last = self.last.lock().await;
        if let Some((began, freshness)) = *last {
            if began >= arrived {
                return Look::Taken(freshness);
            }
            tokio::time::sleep(ASK_PAUSE.saturating_sub(began.elapsed())).await;
        }
        let began = Instant::now();
        let freshness = look().await;
        // Not before: an asker who goes away in the middle has looked at nothing for the others.
        *last = Some((began, freshness));
        Look::Taken(freshness)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn junk_tokens_share_few_looks_behind_the_barrier_and_the_rest_is_refused() {
        let (looks, asked) = (Looks::new(), AtomicUsize::new(0));
        let ask = || {
            looks.share(async || {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Freshness::Fresh
            })
        };
        let answers = futures_util::future::join_all((0..10 * WAITING_MAX).map(|_| ask())).await;
        let taken =
            answers.iter().filter(|answer| **answer == Look::Taken(Freshness::Fresh)).count();
        assert_eq!(taken, WAITING_MAX);
        // One for who came first, and at most one for all who came while it was under way.
        assert!((1..=2).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
        assert_eq!(ask().await, Look::Taken(Freshness::Fresh));
        assert!(asked.load(Ordering::Relaxed) <= 3, "{asked:?}");
    }

    #[tokio::test]
    async fn an_asker_who_goes_away_has_looked_for_nobody() {
        let looks = Looks::new();
        let began = tokio::sync::Notify::new();
        let gone = looks.share(async || {
            began.notify_one();
            std::future::pending().await
        });
        let waiting = looks.share(async || Freshness::Fresh);
        let (mut gone, mut waiting) = (Box::pin(gone), Box::pin(waiting));
        assert!(futures_util::poll!(&mut gone).is_pending());
        began.notified().await;
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(gone);
        assert_eq!(waiting.await, Look::Taken(Freshness::Fresh));
    }

    #[tokio::test]
    async fn who_shares_a_look_without_a_leader_hears_of_that() {
        let (looks, asked) = (Looks::new(), AtomicUsize::new(0));
        let ask = || {
            looks.share(async || {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Freshness::Stale
            })
        };
        let answers = futures_util::future::join_all((0..WAITING_MAX).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| *answer == Look::Taken(Freshness::Stale)));
        assert!(asked.load(Ordering::Relaxed) <= 2, "{asked:?}");
    }
}
