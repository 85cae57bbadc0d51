//! Removes the files of blobs that the group has forgotten, on every replica by itself.
//!
//! Two sources. Apply hands over the digests that a command collected; and a comparison of the disk with the
//! catalogue finds the rest: files of pushes that were never committed, copies that arrived after their blob
//! was collected, what a crash or a snapshot passed over. Both ask the catalogue again under the lock of the
//! digest, and both leave alone what was published a moment ago.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tercet_raft::{Collected, Command, Consensus, Freshness};
use tercet_storage::{BlobStore, Digest, Standing, StorageError, Unlinked};
use tokio::time::Instant;

use crate::config::Gc;
use crate::core::Core;
use crate::ops::Metrics;

/// From the start to the first comparison: the first seconds belong to those who wait for this replica.
const FIRST_COMPARISON: Duration = Duration::from_secs(10);
/// Shortest and longest time between two comparisons of the whole disk.
const COMPARE_EVERY_MIN: Duration = Duration::from_secs(60);
const COMPARE_EVERY_MAX: Duration = Duration::from_secs(60 * 60);
/// Files compared at a time, and the pause after each: at most so many a second.
const PAGE: usize = 256;
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Between two questions for the leader, while none answers.
const STALE_PAUSE: Duration = Duration::from_millis(500);
/// Files remembered because they were too young; more are left to a comparison.
const YOUNG_MAX: usize = 16_384;

/// Starts the worker.
pub(crate) fn start_unlinker(core: &Arc<Core>) {
    let gc = core.config.gc.clone();
    let mut unlinker = Unlinker {
        core: Arc::downgrade(core),
        consensus: core.consensus.clone(),
        blobs: core.blobs.clone(),
        metrics: Arc::clone(&core.metrics),
        young: VecDeque::new(),
        compare_at: Instant::now() + FIRST_COMPARISON.min(gc.orphan_grace()),
        gc,
    };
    core.workers.spawn("unlink", |token| async move {
        token.run_until_cancelled(unlinker.work()).await;
    });
}

struct Unlinker {
    core: Weak<Core>,
    consensus: Consensus,
    blobs: BlobStore,
    metrics: Arc<Metrics>,
    gc: Gc,
    /// Files that may go unless somebody makes them known, with the time to look again, in that order.
    young: VecDeque<(Instant, Digest)>,
    compare_at: Instant,
}

/// Who says that a file may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A command collected the blob.
    Collected,
    /// No record knows the file.
    Orphan,
}

impl Unlinker {
    async fn work(&mut self) {
        loop {
            let next_young = self.young.front().map_or(self.compare_at, |(due, _)| *due);
            tokio::select! {
                collected = self.consensus.collected() => match collected {
                    Collected::Blobs(digests) => self.unlink(digests).await,
                    Collected::Unknown => self.compare_at = Instant::now(),
                },
                () = tokio::time::sleep_until(next_young.min(self.compare_at)) => {}
            }
            self.look_at_young().await;
            if self.compare_at <= Instant::now() {
                self.compare().await;
            }
        }
    }

    async fn unlink(&mut self, digests: Vec<Digest>) {
        self.current().await;
        for digest in digests {
            self.remove(&digest, Cause::Collected).await;
        }
    }

    async fn look_at_young(&mut self) {
        // Whoever switched collection off wants to keep what nobody knows.
        if !self.gc.enabled {
            self.young.clear();
            return;
        }
        let now = Instant::now();
        while self.young.front().is_some_and(|(due, _)| *due <= now) {
            if !self.settled().await {
                self.compare_at = self.compare_at.min(now + COMPARE_EVERY_MIN);
                self.young.clear();
                return;
            }
            for _ in 0..PAGE {
                match self.young.pop_front() {
                    Some((due, digest)) if due <= now => self.remove(&digest, Cause::Orphan).await,
                    Some(later) => {
                        self.young.push_front(later);
                        break;
                    }
                    None => break,
                }
            }
        }
    }

    /// Walks over all files of this replica.
    async fn compare(&mut self) {
        self.compare_at =
            Instant::now() + self.gc.orphan_grace().clamp(COMPARE_EVERY_MIN, COMPARE_EVERY_MAX);
        if !self.gc.enabled {
            return;
        }
        let (mut after, mut files, mut unknown) = (None, 0_usize, 0_usize);
        loop {
            let page = match self.blobs.list(after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "cannot compare the disk with the catalogue");
                    return;
                }
            };
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            files += page.len();
            let orphans = self.without_record(page);
            unknown += orphans.len();
            if !orphans.is_empty() && self.settled().await {
                for digest in orphans {
                    self.remove(&digest, Cause::Orphan).await;
                }
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
        if let Some(core) = self.core.upgrade() {
            core.collection.note_comparison(files, unknown);
        }
    }

    fn without_record(&self, mut page: Vec<Digest>) -> Vec<Digest> {
        page.retain(|digest| standing(&self.consensus, digest) == Standing::Unknown);
        page
    }

    async fn remove(&mut self, digest: &Digest, cause: Cause) {
        let min_age = match cause {
            Cause::Collected => self.gc.publish_grace(),
            Cause::Orphan => self.gc.orphan_grace().max(self.gc.publish_grace()),
        };
        let (consensus, asked) = (self.consensus.clone(), digest.clone());
        let removed =
            self.blobs.collect(digest, min_age, move || standing(&consensus, &asked)).await;
        match removed {
            Ok(Unlinked::Removed { bytes }) => self.count(digest, bytes, cause),
            Ok(Unlinked::Young) => self.remember(digest),
            Ok(Unlinked::Absent | Unlinked::Known) => {}
            Err(StorageError::Cancelled { .. }) => {}
            // A later comparison tries again.
            Err(error) => tracing::error!(%digest, %error, "cannot remove a collected blob"),
        }
    }

    fn count(&self, digest: &Digest, bytes: u64, cause: Cause) {
        self.metrics.gc_freed_bytes.inc_by(bytes);
        match cause {
            Cause::Collected => {
                self.metrics.gc_unlinked.inc();
                tracing::debug!(%digest, bytes, "removed the file of a collected blob");
            }
            Cause::Orphan => {
                self.metrics.gc_orphans_removed.inc();
                tracing::info!(%digest, bytes, "removed a blob file that the cluster does not know");
            }
        }
    }

    /// Looks at the file again when it is old enough, if there is no record by then.
    fn remember(&mut self, digest: &Digest) {
        let due = Instant::now() + self.gc.orphan_grace();
        if self.young.len() < YOUNG_MAX {
            self.young.push_back((due, digest.clone()));
        } else {
            self.compare_at = self.compare_at.min(due);
        }
    }

    /// Whether the state here has everything that any leader had accepted before the call, also what waits for
    /// a majority of disks to have room again: the bytes of a push may be here long before its record. A read
    /// barrier does not tell; a command does, since it comes after all that is in the log.
    async fn settled(&self) -> bool {
        let nothing = Command::CollectBlobs { digests: Vec::new(), grace_ms: u64::MAX };
        if let Err(error) = self.consensus.propose(nothing).await {
            tracing::debug!(%error, "files that no record knows stay for now");
            return false;
        }
        self.current().await;
        true
    }

    /// Waits until the state here has everything that was committed before the call. A replica that is
    /// behind would take a file for garbage whose record it has not applied yet.
    async fn current(&self) {
        while self.consensus.read_barrier().await != Freshness::Fresh {
            tokio::time::sleep(STALE_PAUSE).await;
        }
    }
}

/// What cannot be read counts as known: a file is never removed in doubt.
fn standing(consensus: &Consensus, digest: &Digest) -> Standing {
    match consensus.read(|meta| meta.blob(digest)) {
        Ok(Ok(None)) => Standing::Unknown,
        Ok(Ok(Some(_))) => Standing::Known,
        Ok(Err(error)) => {
            tracing::error!(%digest, %error, "cannot look a blob up; its file stays");
            Standing::Known
        }
        Err(error) => {
            tracing::debug!(%digest, %error, "cannot look a blob up now; its file stays");
            Standing::Known
        }
    }
}
