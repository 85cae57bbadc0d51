//! Gives what was written of a file to the disk while more of it arrives.
//!
//! The fsync before a push is acknowledged would else have to write all of it, while the network stands still.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::fatal;
use crate::planted::{PlantedBug, is_planted};

/// After so many bytes. Fewer would be more calls than the disk has use for.
const EVERY_BYTES: u64 = 16 * 1024 * 1024;

/// Of one file. It promises nothing: the fsync at the end does.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    /// Bytes written since the last sync was begun.
    since: u64,
    running: Option<JoinHandle<()>>,
}

impl Writeback {
    /// So many bytes more were written to `file`. One sync at a time: a disk that does not keep up is not asked for more.
    pub(super) fn wrote(&mut self, bytes: u64, file: &Arc<File>, path: &Path) {
        self.since = self.since.saturating_add(bytes);
        let busy = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if self.since < EVERY_BYTES || busy || is_planted(PlantedBug::SkipBlobFsync) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        self.since = 0;
        let (file, path) = (Arc::clone(file), path.to_owned());
        self.running = Some(runtime.spawn_blocking(move || {
            // As after any sync that fails, what is on the disk is unknown, and the next one may not tell.
            if let Err(error) = file.sync_data() {
                fatal::die("fsync", &path, &error);
            }
        }));
    }
}
