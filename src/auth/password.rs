//! Checks a password against its hash, off the runtime's threads and within bounds.
//!
//! A check costs tens of milliseconds of one core on purpose. So few run at a time, few wait, and a
//! password that was right is remembered for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::bcrypt_hash::BcryptHash;
use super::fingerprint::{Fingerprint, Fingerprints};
use super::throttle::Attempt;

/// Checks that wait for a core; more are told to come again.
const WAITING_MAX: usize = 256;
/// Longest wait; containerd gives up after 30 s.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Told to whom the queue has no place for.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Passwords that were right, remembered.
const CACHE_MAX: u64 = 10_000;
/// For how long.
const CACHE_FOR: Duration = Duration::from_secs(5 * 60);

/// The checks of one replica.
pub(super) struct PasswordCheck {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    fingerprints: Fingerprints,
    right: Cache<Fingerprint, ()>,
}

/// A password that was said to be somebody's. Nothing prints it.
pub(super) struct Candidate<'a> {
    /// The name as the principal's text, so that equal names of different kinds differ.
    pub(super) name: &'a str,
    pub(super) password: &'a str,
    pub(super) hash: &'a BcryptHash,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// It was not made; too many are.
    Busy(Duration),
}

impl PasswordCheck {
    pub(super) fn new() -> Self {
        // Half of the cores: the others serve pulls.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            running: Arc::new(Semaphore::new(cores.div_ceil(2).min(8))),
            waiting: Semaphore::new(WAITING_MAX),
            fingerprints: Fingerprints::new(),
            right: Cache::builder().max_capacity(CACHE_MAX).time_to_live(CACHE_FOR).build(),
        }
    }

    /// Whether this password was right a short while ago, for the hash that counts now.
    pub(super) fn remembers(&self, candidate: &Candidate<'_>) -> bool {
        self.fingerprint(candidate).is_some_and(|key| self.right.contains_key(&key))
    }

    /// Checks, and tells the attempt how it ended: also when the client does not wait for it.
    pub(super) async fn check(&self, candidate: &Candidate<'_>, attempt: Attempt) -> Verdict {
        let Ok(_place) = self.waiting.try_acquire() else { return Verdict::Busy(BUSY_PAUSE) };
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.running).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Verdict::Busy(BUSY_PAUSE) };
        let key = self.fingerprint(candidate);
        if key.as_ref().is_some_and(|key| self.right.contains_key(key)) {
            // Another request of the same client has just shown it.
            attempt.succeeded();
            return Verdict::Right;
        }
        let (password, hash) = (candidate.password.to_owned(), candidate.hash.clone());
        let right = self.right.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let matches = hash.matches(&password);
            if matches {
                attempt.succeeded();
                if let Some(key) = key {
                    right.insert(key, ());
                }
            } else {
                attempt.failed(Instant::now());
            }
            drop(turn);
            matches
        });
        match checked.await {
            Ok(true) => Verdict::Right,
            Ok(false) => Verdict::Wrong,
            // The runtime is shutting down.
            Err(_) => Verdict::Busy(BUSY_PAUSE),
        }
    }

    /// With the hash in it, a password that was changed is not remembered any more.
    fn fingerprint(&self, candidate: &Candidate<'_>) -> Option<Fingerprint> {
        self.fingerprints.of(&[candidate.name, candidate.password, candidate.hash.as_str()])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::super::login::Login;
    use super::super::throttle::Throttle;
    use super::*;

    fn attempt(throttle: &Throttle) -> Attempt {
        let login = Login::User("alice".to_owned());
        throttle.admit(None, &login, Instant::now()).ok().unwrap()
    }

    #[tokio::test]
    async fn a_right_password_is_remembered_until_the_hash_changes() {
        let (check, throttle) = (PasswordCheck::new(), Throttle::new());
        let old: BcryptHash = bcrypt::hash("wonderland", 4).unwrap().parse().unwrap();
        let new: BcryptHash = bcrypt::hash("wonderland", 4).unwrap().parse().unwrap();
        let with = |password, hash| Candidate { name: "user:alice", password, hash };
        let good = with("wonderland", &old);
        assert!(!check.remembers(&good));
        assert_eq!(check.check(&good, attempt(&throttle)).await, Verdict::Right);
        assert!(check.remembers(&good));
        assert!(!check.remembers(&with("wonderland", &new)));
        assert!(!check.remembers(&Candidate { name: "robot:alice", ..good }));
        let wrong = with("looking-glass", &old);
        assert_eq!(check.check(&wrong, attempt(&throttle)).await, Verdict::Wrong);
        assert!(!check.remembers(&wrong));
    }

    #[tokio::test]
    async fn more_checks_than_can_wait_are_told_to_come_again() {
        let (check, throttle) = (PasswordCheck::new(), Throttle::new());
        let hash: BcryptHash = bcrypt::hash("wonderland", 4).unwrap().parse().unwrap();
        let candidate = Candidate { name: "user:alice", password: "wonderland", hash: &hash };
        let all = check.waiting.acquire_many(WAITING_MAX as u32).await.unwrap();
        let told = check.check(&candidate, attempt(&throttle)).await;
        assert_eq!(told, Verdict::Busy(BUSY_PAUSE));
        drop(all);
        assert_eq!(check.check(&candidate, attempt(&throttle)).await, Verdict::Right);
    }
}
