//! Snapshots: RocksDB checkpoints in directories of their own.
//!
//! `<data>/snapshots/<name>/` is a checkpoint (hard links, so it costs little space while it is
//! young), `<name>.meta` says what it contains. The meta file is written last, so a checkpoint
//! without one is rubbish from a crash and removed at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::RaftSnapshotBuilder;
use tercet_storage::{DataDir, StorageError, atomic_write, failpoint};

use super::state::State;
use crate::blocking::blocking;
use crate::chance;
use crate::error::RaftError;
use crate::records::{decode_snapshot_meta, encode_snapshot_meta, to_io};
use crate::type_config::TypeConfig;
use crate::type_config::alias::{Snapshot, SnapshotMeta};

/// A directory that holds a checkpoint. Removed when the last handle on it is dropped, unless it was
/// installed or is the current snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotDir(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    path: PathBuf,
    kept: AtomicBool,
}

impl SnapshotDir {
    /// Takes charge of a directory, which may still have to be made.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Owned { path, kept: AtomicBool::new(false) }))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The directory outlives its handles.
    pub(super) fn keep(&self) {
        self.0.kept.store(true, Ordering::Release);
    }

    /// The directory goes with its last handle.
    fn release(&self) {
        self.0.kept.store(false, Ordering::Release);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            let _ = std::fs::remove_file(meta_path(&self.path));
            if let Err(error) = std::fs::remove_dir_all(&self.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %self.path.display(), %error, "cannot remove a snapshot");
            }
        }
    }
}

/// The snapshots of this replica: at most one current one, and those still being sent or received.
pub(crate) struct SnapshotStore {
    dir: PathBuf,
    current: Mutex<Option<Snapshot>>,
}

impl SnapshotStore {
    pub(super) fn open(data: &DataDir) -> Result<Self, RaftError> {
        let dir = data.snapshots();
        let current = newest_complete(&dir).map_err(|source| StorageError::Io {
            operation: "read",
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir, current: Mutex::new(current) })
    }

    pub(super) fn current(&self) -> Option<Snapshot> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives up a snapshot that ends before `index`.
    pub(super) fn forget_before(&self, index: Option<u64>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let ends =
            current.as_ref().and_then(|snapshot| snapshot.meta.last_log_id).map(|id| id.index);
        if ends < index
            && let Some(old) = current.take()
        {
            old.snapshot.release();
        }
    }

    fn publish(&self, snapshot: &Snapshot) -> io::Result<()> {
        let bytes = encode_snapshot_meta(&snapshot.meta).map_err(to_io)?;
        atomic_write(&meta_path(snapshot.snapshot.path()), &bytes).map_err(to_io)?;
        snapshot.snapshot.keep();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(previous) = current.replace(snapshot.clone()) {
            previous.snapshot.release();
        }
        Ok(())
    }
}

/// A new, unused directory name below `<data>/snapshots`.
pub(crate) fn fresh_dir(snapshots: &Path, kind: &str) -> PathBuf {
    snapshots.join(format!("{kind}-{:016x}", chance::number()))
}

/// Takes checkpoints for openraft.
pub struct SnapshotBuilder {
    state: Arc<State>,
    store: Arc<SnapshotStore>,
}

impl SnapshotBuilder {
    pub(super) fn new(state: Arc<State>, store: Arc<SnapshotStore>) -> Self {
        Self { state, store }
    }

    pub(super) async fn build(&mut self) -> io::Result<Snapshot> {
        let (state, store) = (Arc::clone(&self.state), Arc::clone(&self.store));
        blocking(move || {
            let dir = SnapshotDir::new(fresh_dir(&store.dir, "checkpoint"));
            let meta = state.checkpoint(dir.path())?;
            failpoint::hit("snapshot.checkpoint_taken");
            let snapshot = Snapshot { meta, snapshot: dir };
            store.publish(&snapshot)?;
            Ok(snapshot)
        })
        .await?
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.build().await
    }
}

/// Finds the newest checkpoint that has its meta file; removes everything else.
fn newest_complete(dir: &Path) -> io::Result<Option<Snapshot>> {
    std::fs::create_dir_all(dir)?;
    let mut newest: Option<Snapshot> = None;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            let candidate = SnapshotDir::new(path);
            let Some(meta) = read_meta(candidate.path()) else { continue };
            if newest.as_ref().is_none_or(|best| meta.last_log_id > best.meta.last_log_id) {
                newest = Some(Snapshot { meta, snapshot: candidate });
            }
        }
    }
    if let Some(newest) = &newest {
        newest.snapshot.keep();
    }
    Ok(newest)
}

fn read_meta(checkpoint: &Path) -> Option<SnapshotMeta> {
    let bytes = std::fs::read(meta_path(checkpoint)).ok()?;
    decode_snapshot_meta(&bytes).ok()
}

fn meta_path(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("meta")
}
