//! What the parts of repair share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tercet_storage::{BlobStore, Clock, Digest};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backlog::Backlog;
use super::{Budget, Catalogue, RepairParts};
use crate::loss::Losses;
use crate::ops::Metrics;
use crate::peer::directory::{Directory, Peer};
use crate::peer::fetch::Fetcher;
use crate::peer::placement::{is_placed_on, placement_key};

/// Blobs of which this replica has a copy that belongs elsewhere, known by name; the next comparison
/// finds the others.
const SURPLUS_MAX: usize = 8_192;

pub(super) struct Shared {
    pub(super) blobs: BlobStore,
    pub(super) fetcher: Fetcher,
    pub(super) directory: Directory,
    pub(super) catalogue: Arc<dyn Catalogue>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) losses: Losses,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) replication_factor: usize,
    pub(super) parallel: usize,
    pub(super) budget: Budget,
    pub(super) surplus_after: Duration,
    backlog: Mutex<Backlog>,
    surplus: Mutex<BTreeMap<Digest, u64>>,
    compare_at: Mutex<Instant>,
    /// Blobs in the catalogue when it was last compared.
    pub(super) catalogued: AtomicU64,
}

impl Shared {
    pub(super) fn new(parts: RepairParts) -> (Self, mpsc::Receiver<(Digest, u64)>) {
        let shared = Self {
            blobs: parts.blobs,
            fetcher: parts.fetcher,
            directory: parts.directory,
            catalogue: parts.catalogue,
            metrics: parts.metrics,
            losses: parts.losses,
            clock: parts.clock,
            replication_factor: parts.replication_factor,
            parallel: parts.parallel,
            budget: parts.budget,
            surplus_after: parts.surplus_after,
            backlog: Mutex::default(),
            surplus: Mutex::default(),
            compare_at: Mutex::new(Instant::now()),
            catalogued: AtomicU64::new(0),
        };
        (shared, parts.committed)
    }

    /// Whether a blob belongs on this replica's disk, by these members.
    pub(super) fn belongs_here(&self, members: &[Peer], digest: &Digest) -> bool {
        is_placed_on(members, self.replication_factor, &placement_key(digest), self.directory.own())
    }

    /// Looks for `blobs` on the disk, and notes those that are here and belong elsewhere. Returns those
    /// that belong here and are not, or `None` if it could not look.
    pub(super) async fn look_for(
        &self,
        members: &[Peer],
        blobs: Vec<(Digest, u64)>,
    ) -> Option<Vec<(Digest, u64)>> {
        let digests = blobs.iter().map(|(digest, _)| digest.clone()).collect();
        let found = match self.blobs.sizes_of(digests).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "cannot look for blobs");
                return None;
            }
        };
        let mut missing = Vec::new();
        for ((digest, size), found) in blobs.into_iter().zip(found) {
            let belongs_here = self.belongs_here(members, &digest);
            match found {
                Some(found) if found == size => {
                    if !belongs_here {
                        self.note_surplus(digest, size);
                    } else if self.losses.total() > 0 {
                        self.losses.recovered(&digest);
                    }
                    continue;
                }
                Some(found) => {
                    let reason = format!("{found} bytes on disk, {size} in the catalogue");
                    tracing::error!(%digest, reason, "a blob has the wrong size");
                    if let Err(error) = self.blobs.quarantine(&digest, &reason).await {
                        tracing::error!(%digest, %error, "cannot quarantine it");
                    }
                }
                None => {}
            }
            if belongs_here {
                missing.push((digest, size));
            }
        }
        Some(missing)
    }

    /// Has these fetched.
    pub(super) fn note_missing(&self, missing: Vec<(Digest, u64)>) {
        for (digest, size) in missing {
            self.backlog().note(digest, size, Instant::now());
        }
        self.show();
    }

    fn note_surplus(&self, digest: Digest, size: u64) {
        let mut surplus = self.surplus.lock().unwrap_or_else(PoisonError::into_inner);
        if surplus.len() < SURPLUS_MAX {
            surplus.insert(digest, size);
        }
    }

    /// What has been noted as surplus.
    pub(super) fn surplus(&self) -> BTreeMap<Digest, u64> {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is gone, or not to go.
    pub(super) fn forget_surplus(&self, digest: &Digest) {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    /// Other members, other placement.
    pub(super) fn forget_all_surplus(&self) {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Has catalogue and disk compared at `at`, if not sooner.
    pub(super) fn compare_by(&self, at: Instant) {
        let mut compare_at = self.compare_at.lock().unwrap_or_else(PoisonError::into_inner);
        *compare_at = (*compare_at).min(at);
    }

    /// When they are to be compared next.
    pub(super) fn compare_at(&self) -> Instant {
        *self.compare_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A comparison begins: the next one is not before `next`, unless something happens.
    pub(super) fn comparing(&self, next: Instant) {
        *self.compare_at.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self) {
        let totals = self.backlog().totals(Instant::now());
        self.metrics.missing_blobs.set(gauge(totals.missing as u64));
        self.metrics.oldest_missing_seconds.set(gauge(totals.oldest.as_secs()));
    }

    /// Blobs in the catalogue when it was last compared.
    pub(super) fn catalogued(&self) -> u64 {
        self.catalogued.load(Ordering::Relaxed)
    }

    /// Every change under the lock is complete in itself.
    pub(super) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
