//! The state machine: what the log says, applied in order.
//!
//! One RocksDB write batch per apply batch, with the position of the last entry in it. The batch is
//! not synced: after a power loss the Raft log is applied again from that position.

mod apply;
#[cfg(test)]
mod bench;
mod blob;
mod collect;
mod collected;
mod feature;
mod immutable;
mod manifest;
mod member;
mod retention;
mod snapshot;
mod state;
mod token_key;

use std::io;
use std::sync::Arc;

use futures_util::{FutureExt, Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use tercet_storage::{DataDir, Digest, Meta, StateDb};
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::command::{Command, Proposal};
use crate::error::RaftError;
use crate::feature::FEATURE_LEVEL;
use crate::type_config::TypeConfig;
use crate::type_config::alias::{
    Entry, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, WatchReceiver,
};

pub use collected::Collected;
pub(crate) use collected::CollectedFeed;
pub use retention::{PULLS_MAX, RETIRED_MAX};
pub use snapshot::SnapshotDir;
pub(crate) use snapshot::{SnapshotBuilder, SnapshotStore, fresh_dir as fresh_snapshot_dir};
pub(crate) use state::{
    KEY_INSTALLED, KEY_LAST_APPLIED, KEY_LOG_SYNCED, KEY_MEMBERSHIP, State, nothing_synced,
    verify_checkpoint,
};

/// Entries applied in one RocksDB write batch at most.
const APPLY_BATCH_MAX: usize = 256;
/// Bytes of manifests in one such batch; the entry that exceeds it is the last.
const APPLY_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// openraft's handle on the state machine. Readers share its state.
pub struct Machine {
    state: Arc<State>,
    snapshots: Arc<SnapshotStore>,
    committed_blobs: BlobFeed,
    collected_blobs: CollectedFeed,
}

/// Tells the repair worker which blobs the log has just made visible.
#[derive(Clone)]
pub(crate) struct BlobFeed {
    queue: mpsc::Sender<(Digest, u64)>,
    /// Set when the queue was full: the worker then compares the whole catalogue with the disk.
    overflowed: Arc<std::sync::atomic::AtomicBool>,
}

impl BlobFeed {
    pub(crate) fn new(queue: mpsc::Sender<(Digest, u64)>) -> Self {
        Self { queue, overflowed: Arc::default() }
    }

    /// Whether blobs were dropped since the last call.
    pub(crate) fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, std::sync::atomic::Ordering::AcqRel)
    }

    /// Whether blobs were dropped since the last call of [`BlobFeed::take_overflow`].
    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflowed.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Asks for a comparison of catalogue and disk.
    fn overflow(&self) {
        self.overflowed.store(true, std::sync::atomic::Ordering::Release);
    }

    fn push(&self, digest: Digest, size: u64) {
        if self.queue.try_send((digest, size)).is_err() {
            self.overflow();
        }
    }
}

impl Machine {
    /// Opens the state database below `data`, finishing or undoing a snapshot installation that a
    /// crash interrupted.
    pub fn open(
        data: &DataDir,
        committed_blobs: mpsc::Sender<(Digest, u64)>,
    ) -> Result<Self, RaftError> {
        Self::open_at(data, committed_blobs, FEATURE_LEVEL)
    }

    /// As [`Self::open`], for a replica that takes part with this feature level: what is above it ends the
    /// replica and is never skipped.
    pub fn open_at(
        data: &DataDir,
        committed_blobs: mpsc::Sender<(Digest, u64)>,
        feature_level: u32,
    ) -> Result<Self, RaftError> {
        let snapshots = Arc::new(SnapshotStore::open(data)?);
        let state = Arc::new(State::open(data)?.limited_to(feature_level)?);
        // A crash between an installation and the checkpoint that follows it leaves one from before.
        // The log behind it is purged, so a replica that got it could not go on from it.
        let installed =
            state.installed_index().map_err(|error| RaftError::Stopped(error.to_string()))?;
        snapshots.forget_before(installed);
        Ok(Self {
            state,
            snapshots,
            committed_blobs: BlobFeed::new(committed_blobs),
            collected_blobs: CollectedFeed::default(),
        })
    }

    /// Runs `read` on the current metadata.
    pub fn read<T>(&self, read: impl FnOnce(Meta<'_, StateDb>) -> T) -> io::Result<T> {
        self.state.read(read)
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// The log may begin behind the state from now on, as behind a snapshot; see [`State::take_as_installed`].
    pub(crate) fn take_state_as_installed(&self) -> io::Result<Option<LogId>> {
        let applied = self.state.take_as_installed()?;
        // The log goes on from the state: one that got an older checkpoint could not.
        self.snapshots.forget_before(applied.map(|id| id.index));
        Ok(applied)
    }

    pub(crate) fn blob_feed(&self) -> BlobFeed {
        self.committed_blobs.clone()
    }

    pub(crate) fn collected_feed(&self) -> CollectedFeed {
        self.collected_blobs.clone()
    }

    /// The index of the last applied entry, as it changes.
    pub(crate) fn watch_applied(&self) -> WatchReceiver<Option<u64>> {
        self.state.watch_applied()
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.state.applied()
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some(first) = entries.next().await {
            let mut batch = vec![first?];
            let mut bytes = batch.iter().map(|(entry, _)| payload_bytes(entry)).sum::<usize>();
            while batch.len() < APPLY_BATCH_MAX && bytes < APPLY_BATCH_BYTES {
                match entries.next().now_or_never() {
                    Some(Some(next)) => {
                        let next = next?;
                        bytes += payload_bytes(&next.0);
                        batch.push(next);
                    }
                    Some(None) | None => break,
                }
            }
            let (batch, responders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            // Not on a runtime thread: it waits while a checkpoint is being taken.
            let state = Arc::clone(&self.state);
            let applied = blocking(move || state.apply(batch)).await??;
            for (digest, size) in applied.blobs {
                self.committed_blobs.push(digest, size);
            }
            self.collected_blobs.push(applied.collected);
            // Answered only after the batch is written: a proposer that reads at once must see it.
            for (responder, outcome) in responders.into_iter().zip(applied.outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(Arc::clone(&self.state), Arc::clone(&self.snapshots))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotDir,
    ) -> io::Result<()> {
        let state = Arc::clone(&self.state);
        let expected = meta.clone();
        blocking(move || state.install(&expected, snapshot)).await??;
        // Blobs named by the snapshot never passed through apply here.
        self.committed_blobs.overflow();
        // And others may have been collected in what was passed over.
        self.collected_blobs.overflow();
        self.get_snapshot_builder().await.build().await?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.current())
    }
}

/// What an entry weighs: only manifests weigh anything.
fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(Proposal {
            command: Command::PutManifest { bytes, .. } | Command::PushManifest { bytes, .. },
            ..
        }) => bytes.len(),
        // What it removes is in the state: it may rewrite as much as a whole batch holds.
        Payload::Normal(Proposal { command: Command::ApplyRetention { .. }, .. }) => {
            APPLY_BATCH_BYTES
        }
        _ => 0,
    }
}
