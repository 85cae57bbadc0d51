//! Background work: named tasks that stop when they are asked to.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The registry of background tasks. Nothing else spawns, so that a drain knows what is left and a
/// log line can say its name. Clones share one registry.
///
/// A panic in a worker ends the process through the panic hook that `main` installs: half a
/// replica is worse than one that starts again.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    token: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Workers {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It has to end soon after the token it is given is cancelled.
    pub fn spawn<F, T>(&self, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let task = work(self.token.clone());
        let presence = Presence::enter(Arc::clone(&self.running), name);
        self.tracker.spawn(async move {
            let _presence = presence;
            task.await;
        });
    }

    /// The token that every worker gets; cancelled by [`Workers::shutdown`].
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Names of the tasks that are running, each with how many there are.
    #[must_use]
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.running).clone()
    }

    /// Asks every worker to stop and waits up to `deadline`. Returns the ones that did not.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<&'static str> {
        self.token.cancel();
        self.tracker.close();
        // Whether it timed out is told by who is still there.
        let _ = tokio::time::timeout(deadline, self.tracker.wait()).await;
        self.running().into_keys().collect()
    }
}

/// Counts a task for as long as it lives, also when it is dropped half-way.
struct Presence {
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    name: &'static str,
}

impl Presence {
    fn enter(running: Arc<Mutex<BTreeMap<&'static str, usize>>>, name: &'static str) -> Self {
        *lock(&running).entry(name).or_insert(0) += 1;
        Self { running, name }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        match running.get_mut(self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                running.remove(self.name);
            }
        }
    }
}

/// The counts stay right when a holder of the lock panicked: each change is one statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn a_worker_stops_when_asked() {
        let workers = Workers::new();
        workers.spawn("patient", |token| async move { token.cancelled().await });
        assert_eq!(workers.running().get("patient"), Some(&1));
        assert!(workers.shutdown(Duration::from_secs(5)).await.is_empty());
        assert!(workers.running().is_empty());
    }

    #[tokio::test]
    async fn a_worker_that_does_not_stop_is_named() {
        let workers = Workers::new();
        workers.spawn("stubborn", |_| std::future::pending());
        assert_eq!(workers.shutdown(Duration::from_millis(20)).await, ["stubborn"]);
    }
}
