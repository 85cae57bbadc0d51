//! How far a scrub is, in memory and on the disk.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tercet_storage::{Digest, StorageError, atomic_write};

use super::Read;

/// One reading of all blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// The last blob read; they are read in the order of their digests.
    pub after: Option<Digest>,
    /// Blobs read so far.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, those that were not right.
    pub corrupt: u64,
}

/// What `/status` says about a replica's scrub.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// The share of the digests that the pass under way has behind it, from 0 to 1; `None` between passes.
    pub fraction: Option<f64>,
    /// When the last complete pass ended, in milliseconds since the Unix epoch.
    pub last_completed_ms: Option<u64>,
    /// Blobs that were not right, in the pass under way or else in the last one.
    pub corrupt: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    pass: Option<Pass>,
    last_began_ms: Option<u64>,
    last_completed_ms: Option<u64>,
    last_corrupt: u64,
}

/// Shared by the worker and those who ask.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    saved: Arc<Mutex<Saved>>,
}

impl Progress {
    /// What the last process wrote. A file that cannot be read costs a pass that begins anew.
    pub(super) fn load(path: &Path) -> Self {
        let saved = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the progress of the scrub is lost");
                Saved::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Saved::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the progress of the scrub is lost");
                Saved::default()
            }
        };
        Self { saved: Arc::new(Mutex::new(saved)) }
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), StorageError> {
        let saved = self.lock().clone();
        // Plain data: it always has a JSON form.
        let bytes = serde_json::to_vec(&saved).unwrap_or_default();
        atomic_write(path, &bytes)
    }

    /// The pass under way.
    pub(super) fn pass(&self) -> Option<Pass> {
        self.lock().pass.clone()
    }

    pub(super) fn last_began_ms(&self) -> Option<u64> {
        self.lock().last_began_ms
    }

    pub(super) fn begin(&self, now_ms: u64) {
        let mut saved = self.lock();
        saved.last_began_ms = Some(now_ms);
        saved.pass = Some(Pass { began_ms: now_ms, after: None, blobs: 0, bytes: 0, corrupt: 0 });
    }

    pub(super) fn read(&self, digest: &Digest, read: Read) {
        if let Some(pass) = &mut self.lock().pass {
            pass.after = Some(digest.clone());
            pass.blobs += 1;
            pass.bytes += read.bytes;
            pass.corrupt += u64::from(read.corrupt);
        }
    }

    pub(super) fn complete(&self, now_ms: u64) {
        let mut saved = self.lock();
        if let Some(pass) = saved.pass.take() {
            saved.last_corrupt = pass.corrupt;
            saved.last_completed_ms = Some(now_ms);
        }
    }

    pub(super) fn status(&self) -> ScrubStatus {
        let saved = self.lock();
        ScrubStatus {
            fraction: saved.pass.as_ref().map(|pass| pass.after.as_ref().map_or(0.0, fraction)),
            last_completed_ms: saved.last_completed_ms,
            corrupt: saved.pass.as_ref().map_or(saved.last_corrupt, |pass| pass.corrupt),
        }
    }

    /// Every change under the lock is complete in itself.
    fn lock(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Digests are evenly spread, so the first byte says how much is behind.
fn fraction(after: &Digest) -> f64 {
    f64::from(after.as_bytes().first().copied().unwrap_or(0)) / 256.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::Algorithm;

    use super::*;

    #[test]
    fn a_pass_goes_on_after_a_restart_and_damage_costs_only_the_progress() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scrub.json");
        let progress = Progress::load(&path);
        assert_eq!((progress.pass(), progress.last_began_ms()), (None, None));
        progress.begin(5);
        let digest = Digest::of(Algorithm::Sha256, b"a");
        progress.read(&digest, Read { bytes: 10, corrupt: true });
        progress.save(&path).unwrap();
        let again = Progress::load(&path);
        let pass = again.pass().unwrap();
        assert_eq!((pass.began_ms, pass.blobs, pass.bytes, pass.corrupt), (5, 1, 10, 1));
        assert_eq!(pass.after, Some(digest));
        again.complete(9);
        let status = again.status();
        assert_eq!((status.fraction, status.last_completed_ms, status.corrupt), (None, Some(9), 1));
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(Progress::load(&path).status(), ScrubStatus::default());
    }
}
