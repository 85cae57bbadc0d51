//! Brings the blobs that this replica should hold and lacks, without being asked, and lets go of what
//! others hold in its stead.
//!
//! The log is the repair queue: each committed blob comes in through a bounded channel (`feed`).
//! What does not fit there, and what went missing otherwise, is found by comparing the catalogue with
//! the disk (`compare`). Both fill the `backlog`; `fetching` empties it.

mod backlog;
mod budget;
mod census;
mod compare;
mod feed;
mod fetching;
mod shared;
mod surplus;

use std::sync::Arc;
use std::time::Duration;

use tercet_raft::Consensus;
use tercet_storage::{BlobStore, Clock, Digest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::fetch::Fetcher;
use crate::loss::Losses;
use crate::ops::Metrics;
pub use budget::Budget;
use shared::Shared;

/// Between two looks at whether there is something to do.
const TICK: Duration = Duration::from_millis(250);

/// What the group says there is.
pub trait Catalogue: Send + Sync + 'static {
    /// Blobs and their sizes in the order of their digests, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// When it cannot be read, with the reason.
    fn page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, String>;

    /// When a blob was committed, in milliseconds since 1970 by the clock of the leader of then, if the
    /// group still knows it.
    ///
    /// # Errors
    /// When it cannot be read, with the reason.
    fn committed_ms(&self, digest: &Digest) -> Result<Option<u64>, String>;

    /// Whether committed blobs were lost on their way into the queue since the last question.
    fn take_rescan(&self) -> bool;

    /// Index of the last log entry that the catalogue contains.
    fn applied(&self) -> u64;

    /// Whether this replica leads, and so answers for the whole cluster.
    fn leads(&self) -> bool;
}

impl Catalogue for Consensus {
    fn page(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, String> {
        let page = self.read(|meta| meta.blobs(after, limit)).map_err(|error| error.to_string())?;
        let page = page.map_err(|error| error.to_string())?;
        Ok(page.into_iter().map(|(digest, record)| (digest, record.size)).collect())
    }

    fn committed_ms(&self, digest: &Digest) -> Result<Option<u64>, String> {
        let found = self.read(|meta| meta.blob(digest)).map_err(|error| error.to_string())?;
        Ok(found.map_err(|error| error.to_string())?.map(|record| record.committed_ms))
    }

    fn take_rescan(&self) -> bool {
        Consensus::take_rescan(self)
    }

    fn applied(&self) -> u64 {
        self.status().applied
    }

    fn leads(&self) -> bool {
        self.status().leader.as_deref() == Some(self.identity().name.as_str())
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
    /// Told of blobs that no replica has any more.
    pub losses: Losses,
    /// Tells how old a copy is.
    pub clock: Arc<dyn Clock>,
    /// Copies of each blob (`cluster.replication_factor`).
    pub replication_factor: usize,
    /// Fetches at a time (`limits.repair_parallel`).
    pub parallel: usize,
    /// The most that all of them together read (`limits.repair_bytes_per_second`).
    pub budget: Budget,
    /// How long a copy that is not placed here is kept after it came (`limits.surplus_after_seconds`).
    pub surplus_after: Duration,
}

impl std::fmt::Debug for RepairParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepairParts").field("parallel", &self.parallel).finish_non_exhaustive()
    }
}

/// The repair of one replica; run it as a worker.
pub struct Repair {
    shared: Shared,
    committed: mpsc::Receiver<(Digest, u64)>,
}

impl std::fmt::Debug for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repair").finish_non_exhaustive()
    }
}

impl Repair {
    /// A repair that has not looked at anything yet.
    #[must_use]
    pub fn new(parts: RepairParts) -> Self {
        let (shared, committed) = Shared::new(parts);
        Self { shared, committed }
    }

    /// Works until it is told to stop.
    pub async fn run(self, token: CancellationToken) {
        let Self { shared, committed } = self;
        // One task: all of it ends when this future does, the fetches included.
        let work = async {
            tokio::join!(
                feed::run(&shared, committed),
                compare::run(&shared),
                fetching::run(&shared),
                census::run(&shared),
                surplus::run(&shared),
            )
        };
        let _ = token.run_until_cancelled(work).await;
    }
}
