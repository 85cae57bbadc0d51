//! Reads every stored blob again from time to time, before somebody needs it.
//!
//! Disks lose bits without saying so. What scrub finds to be wrong goes into quarantine and is fetched from
//! another replica; what no replica has any more is reported as a loss.

mod pace;
mod progress;

use std::sync::Arc;
use std::time::Duration;

use tercet_raft::Consensus;
use tercet_storage::{BlobStore, Clock, DataDir, Digest, Inspection, StorageError, Verdict};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::loss::Losses;
use crate::ops::Metrics;
use crate::peer::{FetchError, Fetcher, Kept};
use pace::Pace;
pub use progress::{Pass, Progress, ScrubStatus};

/// Blobs listed at a time.
const PAGE: usize = 64;
/// Between two looks at whether it is time for the next pass.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two writes of the progress to the disk: what a crash may make it read again.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// After an error that concerns more than one blob.
const ERROR_PAUSE: Duration = Duration::from_secs(30);

/// What the group says a blob is.
pub trait Known: Send + Sync + 'static {
    /// The size of a blob in bytes, if the group knows it.
    ///
    /// # Errors
    /// When the metadata cannot be read, with the reason.
    fn size_of(&self, digest: &Digest) -> Result<Option<u64>, String>;
}

impl Known for Consensus {
    fn size_of(&self, digest: &Digest) -> Result<Option<u64>, String> {
        let found = self.read(|meta| meta.blob(digest)).map_err(|error| error.to_string())?;
        Ok(found.map_err(|error| error.to_string())?.map(|record| record.size))
    }
}

/// What a [`Scrub`] is made of.
pub struct ScrubParts {
    /// Where the progress is kept.
    pub data: DataDir,
    /// What is read.
    pub blobs: BlobStore,
    /// Brings a good copy.
    pub fetcher: Fetcher,
    /// What there should be.
    pub known: Arc<dyn Known>,
    /// Who is told of what nobody has.
    pub losses: Losses,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Tells when a period is over.
    pub clock: Arc<dyn Clock>,
    /// `[scrub]`.
    pub config: config::Scrub,
}

impl std::fmt::Debug for ScrubParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubParts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What others see of the scrub, and how they start a pass. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ScrubHandle {
    progress: Progress,
    now: Arc<Notify>,
}

impl ScrubHandle {
    /// How far it is.
    #[must_use]
    pub fn status(&self) -> ScrubStatus {
        self.progress.status()
    }

    /// Asks for a pass at once. While one is under way it starts over.
    pub fn start_now(&self) {
        self.now.notify_one();
    }
}

/// The scrub of one replica; run it as a worker.
#[derive(Debug)]
pub struct Scrub {
    parts: ScrubParts,
    pace: Pace,
    handle: ScrubHandle,
    saved_at: tokio::time::Instant,
}

impl Scrub {
    /// A scrub that goes on where the last process stopped.
    #[must_use]
    pub fn new(parts: ScrubParts) -> Self {
        let progress = Progress::load(&parts.data.scrub());
        if let Some(last) = progress.status().last_completed_ms {
            parts.metrics.scrub_completed.set(seconds(last));
        }
        Self {
            pace: Pace::new(parts.config.bytes_per_second),
            handle: ScrubHandle { progress, now: Arc::default() },
            saved_at: tokio::time::Instant::now(),
            parts,
        }
    }

    /// What others see of it.
    #[must_use]
    pub fn handle(&self) -> ScrubHandle {
        self.handle.clone()
    }

    /// Works until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.work()).await;
        self.save();
    }

    async fn work(&mut self) {
        let asked = Arc::clone(&self.handle.now);
        loop {
            if !self.is_due() {
                tokio::select! {
                    () = asked.notified() => self.begin(),
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                continue;
            }
            if self.handle.progress.pass().is_none() {
                self.begin();
            }
            tokio::select! {
                () = asked.notified() => self.begin(),
                () = self.pass() => {}
            }
        }
    }

    /// Whether a pass is under way, or the period since the last one began is over.
    fn is_due(&self) -> bool {
        if self.handle.progress.pass().is_some() {
            return true;
        }
        let Some(began) = self.handle.progress.last_began_ms() else {
            return self.parts.config.enabled;
        };
        let period_ms = u64::from(self.parts.config.period_days) * 24 * 3_600 * 1_000;
        let now = self.parts.clock.now_ms();
        // A clock that was set back would put the next pass off for long.
        self.parts.config.enabled && (now >= began.saturating_add(period_ms) || now < began)
    }

    fn begin(&mut self) {
        tracing::info!("scrub begins to read all blobs");
        self.handle.progress.begin(self.parts.clock.now_ms());
        self.save();
    }

    /// Reads what is left of the pass.
    async fn pass(&mut self) {
        loop {
            let Some(pass) = self.handle.progress.pass() else { return };
            let page = match self.parts.blobs.list(pass.after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "scrub cannot list the blobs");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            if page.is_empty() {
                return self.complete(&pass);
            }
            for digest in page {
                let read = self.scrub(&digest).await;
                self.handle.progress.read(&digest, read);
                if self.saved_at.elapsed() >= SAVE_EVERY {
                    self.save();
                }
            }
        }
    }

    fn complete(&mut self, pass: &Pass) {
        let now = self.parts.clock.now_ms();
        self.handle.progress.complete(now);
        self.parts.metrics.scrub_completed.set(seconds(now));
        tracing::info!(
            blobs = pass.blobs,
            bytes = pass.bytes,
            corrupt = pass.corrupt,
            "scrub has read all blobs"
        );
        let period_ms = u64::from(self.parts.config.period_days) * 24 * 3_600 * 1_000;
        if now.saturating_sub(pass.began_ms) > period_ms {
            tracing::warn!(
                "a scrub pass took longer than scrub.period_days: raise scrub.bytes_per_second"
            );
        }
        self.save();
    }

    /// Reads one blob and sees to it that there is a good copy here afterwards.
    async fn scrub(&mut self, digest: &Digest) -> Read {
        let inspected = match self.parts.blobs.inspect(digest).await {
            Ok(None) => return Read::default(),
            Ok(Some(inspection)) => self.read(inspection).await,
            Err(error) => (0, Err(error)),
        };
        let (bytes, reason) = match inspected {
            (bytes, Ok(Verdict::Good { .. })) => return Read { bytes, corrupt: false },
            (bytes, Ok(Verdict::Corrupt { reason })) => (bytes, reason),
            (bytes, Err(error)) => {
                let reason = format!("scrub: {error}");
                // Out of the way, repair sees that it is missing, and goes on trying.
                if error.is_unreadable()
                    && let Err(error) = self.parts.blobs.quarantine(digest, &reason).await
                {
                    tracing::error!(%digest, %error, "an unreadable blob stays where it is");
                }
                (bytes, reason)
            }
        };
        self.parts.metrics.scrub_corrupt.inc();
        tracing::error!(%digest, reason, "scrub found a blob that is not right");
        self.replace(digest).await;
        Read { bytes, corrupt: true }
    }

    async fn read(&mut self, mut inspection: Inspection) -> (u64, Result<Verdict, StorageError>) {
        let mut bytes = 0;
        loop {
            match inspection.advance().await {
                Ok(0) => return (bytes, inspection.verdict().await),
                Ok(read) => {
                    bytes += read as u64;
                    self.parts.metrics.scrub_bytes.inc_by(read as u64);
                    self.pace.take(read).await;
                }
                Err(error) => return (bytes, Err(error)),
            }
        }
    }

    async fn replace(&self, digest: &Digest) {
        let size = match self.parts.known.size_of(digest) {
            Ok(Some(size)) => size,
            // Nobody names it: the collection of unknown files deals with it.
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%digest, error, "cannot look a damaged blob up");
                return;
            }
        };
        match self.parts.fetcher.keep(digest, size).await {
            Ok(Kept::Here) => {
                tracing::info!(%digest, "a good copy came from another replica");
                self.parts.losses.recovered(digest);
            }
            Ok(Kept::Later) => tracing::info!(%digest, "a good copy is on its way already"),
            Err(FetchError::Nowhere { .. }) => {
                let (losses, digest) = (self.parts.losses.clone(), digest.clone());
                // A panic in it ends the process by itself.
                let _ = tokio::task::spawn_blocking(move || losses.report(&digest, size)).await;
            }
            // Repair finds it missing and goes on trying.
            Err(error) => tracing::warn!(%digest, %error, "no good copy could be had yet"),
        }
    }

    fn save(&mut self) {
        self.saved_at = tokio::time::Instant::now();
        if let Err(error) = self.handle.progress.save(&self.parts.data.scrub()) {
            tracing::warn!(%error, "the progress of the scrub was not written down");
        }
    }
}

/// What reading one blob came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Read {
    pub(crate) bytes: u64,
    pub(crate) corrupt: bool,
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}
