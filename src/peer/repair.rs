//! Brings the blobs that this replica should hold and lacks, without being asked.
//!
//! The log is the repair queue: each committed blob comes in through a bounded channel. What does
//! not fit there, and what went missing otherwise, is found by comparing the catalogue with the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tercet_raft::Consensus;
use tercet_storage::{BlobStore, Digest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::fetch::{FetchError, Fetcher, Kept};
use super::placement::{placement, placement_key};
use crate::ops::Metrics;

/// A committed blob is usually being published here at that very moment, by the push itself.
const GRACE: Duration = Duration::from_secs(1);
/// Between two comparisons of catalogue and disk.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at whether there is something to do.
const TICK: Duration = Duration::from_millis(250);
/// While the disk is too full.
const DISK_PAUSE: Duration = Duration::from_secs(10);
/// Between two attempts at one blob, at most.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Blobs in their grace period; more are left to the next comparison.
const GRACE_MAX: usize = 8_192;
/// Missing blobs known by name; more are counted only, and found again when these are done.
const MISSING_MAX: usize = 8_192;
/// Blobs compared at a time.
const PAGE: usize = 256;

/// What the group says there is.
pub trait Catalogue: Send + Sync + 'static {
    /// Blobs and their sizes in the order of their digests, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// When it cannot be read, with the reason.
    fn page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, String>;

    /// Whether the group still knows a blob.
    ///
    /// # Errors
    /// When it cannot be read, with the reason.
    fn knows(&self, digest: &Digest) -> Result<bool, String>;

    /// Whether committed blobs were lost on their way into the queue since the last question.
    fn take_rescan(&self) -> bool;
}

impl Catalogue for Consensus {
    fn page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, String> {
        let page = self.read(|meta| meta.blobs(after, limit)).map_err(|error| error.to_string())?;
        let page = page.map_err(|error| error.to_string())?;
        Ok(page.into_iter().map(|(digest, record)| (digest, record.size)).collect())
    }

    fn knows(&self, digest: &Digest) -> Result<bool, String> {
        let found = self.read(|meta| meta.blob(digest)).map_err(|error| error.to_string())?;
        Ok(found.map_err(|error| error.to_string())?.is_some())
    }

    fn take_rescan(&self) -> bool {
        Consensus::take_rescan(self)
    }
}

/// What a [`Repair`] is made of.
pub struct RepairParts {
    /// This replica's disk.
    pub blobs: BlobStore,
    /// Brings a blob here.
    pub fetcher: Fetcher,
    /// Who the replicas are: placement decides which blobs belong here.
    pub directory: Directory,
    /// What there is.
    pub catalogue: Arc<dyn Catalogue>,
    /// Each blob that the log makes visible, with its size.
    pub committed: mpsc::Receiver<(Digest, u64)>,
    /// Where progress is counted; `missing_blobs` is what `/status` tells.
    pub metrics: Arc<Metrics>,
    /// Copies of each blob (`cluster.replication_factor`).
    pub replication_factor: usize,
    /// Fetches at a time (`limits.repair_parallel`).
    pub parallel: usize,
}

impl std::fmt::Debug for RepairParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepairParts").field("parallel", &self.parallel).finish_non_exhaustive()
    }
}

/// The repair of one replica; run it as a worker.
#[derive(Debug)]
pub struct Repair {
    parts: RepairParts,
    /// Committed lately, in the order of their commit.
    in_grace: VecDeque<(Instant, Digest, u64)>,
    /// Not on the disk when last looked.
    missing: BTreeMap<Digest, Missing>,
    /// Of `missing`, those being fetched.
    fetching: BTreeSet<Digest>,
    /// Missing beyond what `missing` can name.
    uncounted: usize,
    compare_at: Instant,
    paused_until: Instant,
}

#[derive(Debug)]
struct Missing {
    size: u64,
    due: Instant,
    failures: u32,
}

type Fetched = (Digest, Result<Kept, FetchError>);

impl Repair {
    /// A repair that has not looked at anything yet.
    #[must_use]
    pub fn new(parts: RepairParts) -> Self {
        let now = Instant::now();
        Self {
            parts,
            in_grace: VecDeque::new(),
            missing: BTreeMap::new(),
            fetching: BTreeSet::new(),
            uncounted: 0,
            compare_at: now,
            paused_until: now,
        }
    }

    /// Works until it is told to stop.
    pub async fn run(mut self, token: CancellationToken) {
        let _ = token.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        // Fetches end with this future: dropping the set aborts them.
        let mut fetches: JoinSet<Fetched> = JoinSet::new();
        let mut feed_is_open = true;
        loop {
            tokio::select! {
                committed = self.parts.committed.recv(), if feed_is_open => match committed {
                    Some((digest, size)) => self.commit(digest, size),
                    None => feed_is_open = false,
                },
                Some(fetched) = fetches.join_next() => match fetched {
                    Ok((digest, result)) => self.fetched(&digest, result),
                    // A panic ends the process by its hook; this is for the moment before.
                    Err(error) => tracing::error!(%error, "a repair fetch ended abnormally"),
                },
                () = tokio::time::sleep(TICK) => {}
            }
            self.end_grace().await;
            self.compare_if_due().await;
            self.start(&mut fetches);
            self.count();
        }
    }

    fn commit(&mut self, digest: Digest, size: u64) {
        if self.in_grace.len() >= GRACE_MAX {
            // The comparison finds it.
            self.compare_at = self.compare_at.min(Instant::now() + GRACE);
            return;
        }
        self.in_grace.push_back((Instant::now() + GRACE, digest, size));
    }

    async fn end_grace(&mut self) {
        let now = Instant::now();
        while self.in_grace.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, digest, size)) = self.in_grace.pop_front() {
                self.look(digest, size).await;
            }
        }
    }

    /// Notes a blob that belongs here and is not.
    async fn look(&mut self, digest: Digest, size: u64) {
        if self.missing.contains_key(&digest) || !self.belongs_here(&digest) {
            return;
        }
        match self.parts.blobs.size_of(&digest).await {
            Ok(Some(found)) if found == size => return,
            Ok(Some(found)) => {
                let reason = format!("{found} bytes on disk, {size} in the catalogue");
                tracing::error!(%digest, reason, "a blob has the wrong size");
                if let Err(error) = self.parts.blobs.quarantine(&digest, &reason).await {
                    tracing::error!(%digest, %error, "cannot quarantine it");
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%digest, %error, "cannot look for a blob");
                return;
            }
        }
        if self.missing.len() >= MISSING_MAX {
            self.uncounted += 1;
            return;
        }
        self.missing.insert(digest, Missing { size, due: Instant::now(), failures: 0 });
    }

    fn belongs_here(&self, digest: &Digest) -> bool {
        let RepairParts { directory, replication_factor, .. } = &self.parts;
        placement(&directory.members(), *replication_factor, &placement_key(digest))
            .iter()
            .any(|peer| peer.node_id == directory.own())
    }

    /// Compares catalogue and disk when it is time, when the queue has overflowed, or when more was
    /// missing than could be named.
    async fn compare_if_due(&mut self) {
        let named_are_done = self.uncounted > 0 && self.missing.is_empty();
        let due = self.compare_at <= Instant::now() || named_are_done;
        if !self.parts.catalogue.take_rescan() && !due {
            return;
        }
        self.uncounted = 0;
        let mut after: Option<Digest> = None;
        loop {
            let page = match self.parts.catalogue.page(after.as_ref(), PAGE) {
                Ok(page) => page,
                Err(reason) => {
                    tracing::error!(reason, "cannot compare the catalogue with the disk");
                    break;
                }
            };
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (digest, size) in page {
                self.look(digest, size).await;
            }
        }
        self.compare_at = Instant::now() + COMPARE_EVERY;
    }

    /// Starts as many fetches as there may be.
    fn start(&mut self, fetches: &mut JoinSet<Fetched>) {
        let now = Instant::now();
        if self.paused_until > now || self.missing.len() == self.fetching.len() {
            return;
        }
        while fetches.len() < self.parts.parallel {
            let next = self
                .missing
                .iter()
                .filter(|(digest, missing)| missing.due <= now && !self.fetching.contains(digest))
                .min_by_key(|(_, missing)| missing.due)
                .map(|(digest, missing)| (digest.clone(), missing.size));
            let Some((digest, size)) = next else { return };
            if !self.parts.fetcher.may_keep() {
                tracing::warn!(
                    "the disk is too full, repair waits (limits.disk_repair_stop_percent)"
                );
                self.paused_until = now + DISK_PAUSE;
                return;
            }
            self.fetching.insert(digest.clone());
            let fetcher = self.parts.fetcher.clone();
            let blobs = self.parts.blobs.clone();
            fetches.spawn(async move {
                // It may have come by another way since it was noted.
                let result = match blobs.size_of(&digest).await {
                    Ok(Some(found)) if found == size => Ok(Kept::Here),
                    Ok(_) => fetcher.keep(&digest, size).await,
                    Err(error) => Err(error.into()),
                };
                (digest, result)
            });
        }
    }

    fn fetched(&mut self, digest: &Digest, result: Result<Kept, FetchError>) {
        self.fetching.remove(digest);
        let error = match result {
            Ok(Kept::Here) => {
                self.missing.remove(digest);
                self.parts.metrics.repair_fetched.inc();
                return;
            }
            Ok(Kept::Later) => None,
            Err(error) => Some(error),
        };
        if matches!(self.parts.catalogue.knows(digest), Ok(false)) {
            self.missing.remove(digest);
            return;
        }
        let Some(missing) = self.missing.get_mut(digest) else { return };
        let Some(error) = error else {
            missing.due = Instant::now() + GRACE;
            return;
        };
        self.parts.metrics.repair_failed.inc();
        missing.failures = missing.failures.saturating_add(1);
        let pause = Duration::from_secs(1 << missing.failures.min(5)).min(BACKOFF_MAX);
        missing.due = Instant::now() + pause;
        tracing::warn!(%digest, %error, again_in = ?pause, "repair could not bring a blob");
    }

    fn count(&self) {
        let missing = self.missing.len() + self.uncounted;
        self.parts.metrics.missing_blobs.set(i64::try_from(missing).unwrap_or(i64::MAX));
    }
}
