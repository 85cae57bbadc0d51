//! A copy of the metadata as of one log index, for a backup.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::consensus::Inner;
use crate::machine::{SnapshotDir, fresh_snapshot_dir};

/// The state database as of one index, in a directory that goes with its last handle. Made of hard links:
/// it costs space only as the live database moves on.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Index of the last entry in it.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    dir: SnapshotDir,
}

impl Checkpoint {
    /// Where its files are; a flat directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Inner {
    pub(crate) async fn checkpoint(&self) -> io::Result<Checkpoint> {
        // What a crash leaves of it there is removed at the next start.
        let dir = SnapshotDir::new(fresh_snapshot_dir(&self.data.snapshots(), "backup"));
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || {
            let meta = state.checkpoint(dir.path())?;
            let last = meta
                .last_log_id
                .ok_or_else(|| io::Error::other("nothing was applied on this replica yet"))?;
            Ok(Checkpoint { index: last.index, term: last.leader_id.term, dir })
        })
        .await
        .map_err(io::Error::other)?
    }
}
