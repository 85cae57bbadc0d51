//! The upload sessions that this replica serves.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tercet_storage::UploadId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::RegistryError;
use super::session::{BUSY_WAIT, Session};
use crate::config::Limits;
use crate::ops::Metrics;

/// Closed sessions that are remembered, so that a client which lost the answer to its closing `PUT`
/// and sends it again is told the same.
const CLOSED_REMEMBERED_MAX: usize = 4_096;

/// Orphans that can be opened at a time, at the most.
const ADOPTING_STRIPES: usize = 64;

/// The upload sessions that this replica serves: those it opened, and those it adopted from a replica
/// that is gone. What it holds for a replica that lives is in [`crate::peer::HeldSessions`].
#[derive(Debug)]
pub struct Uploads {
    known: Mutex<Known>,
    /// One permit per open session.
    permits: Arc<Semaphore>,
    open_max: usize,
    /// Two requests that find the same orphan must not both open its file. Striped by id: opening
    /// reads the whole file, and one orphan must not wait for all others.
    adopting: [tokio::sync::Mutex<()>; ADOPTING_STRIPES],
}

#[derive(Debug, Default)]
struct Known {
    sessions: HashMap<UploadId, Arc<Session>>,
    closed: VecDeque<UploadId>,
}

impl Uploads {
    /// No session yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let open_max = limits.uploads_max.min(Semaphore::MAX_PERMITS);
        Self {
            known: Mutex::default(),
            permits: Arc::new(Semaphore::new(open_max)),
            open_max,
            adopting: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }
    }

    /// Whether this replica answers for the session itself. Nobody else may write to its file then.
    #[must_use]
    pub fn serves(&self, id: &UploadId) -> bool {
        self.known().sessions.contains_key(id)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open_max.saturating_sub(self.permits.available_permits())
    }

    /// Shows how many sessions are open.
    pub(super) fn gauge(&self, metrics: &Metrics) {
        metrics.uploads_open.set(i64::try_from(self.open_count()).unwrap_or(i64::MAX));
    }

    /// The right to open a session's file for good; waits a bounded time for whoever has it.
    pub(super) async fn adopting(
        &self,
        id: &UploadId,
    ) -> Result<tokio::sync::MutexGuard<'_, ()>, RegistryError> {
        let mut hasher = std::hash::DefaultHasher::new();
        id.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % ADOPTING_STRIPES as u64).unwrap_or(0);
        let busy = || RegistryError::UploadBusy(*id);
        let lock = self.adopting.get(stripe).ok_or_else(busy)?.lock();
        tokio::time::timeout(BUSY_WAIT, lock).await.map_err(|_| busy())
    }

    /// Room for one more open session.
    pub(super) fn permit(&self) -> Result<OwnedSemaphorePermit, RegistryError> {
        Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| RegistryError::UploadsFull(self.open_max))
    }

    /// A session that this replica serves.
    pub(super) fn get(&self, id: &UploadId) -> Option<Arc<Session>> {
        self.known().sessions.get(id).cloned()
    }

    pub(super) fn insert(&self, session: Arc<Session>) {
        self.known().sessions.insert(session.id, session);
    }

    pub(super) fn remove(&self, id: &UploadId) {
        self.known().sessions.remove(id);
    }

    /// Keeps a session that was closed with success for a while, in place of older ones.
    pub(super) fn remember_closed(&self, id: &UploadId) {
        let mut known = self.known();
        known.closed.push_back(*id);
        if known.closed.len() > CLOSED_REMEMBERED_MAX
            && let Some(oldest) = known.closed.pop_front()
        {
            known.sessions.remove(&oldest);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.known().sessions.values().cloned().collect()
    }

    /// Every change under the lock is complete in itself, so a poisoned lock still guards good data.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
