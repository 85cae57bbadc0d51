//! Ends upload sessions that nobody touches, and remembers closed ones only for a while.

use std::sync::Arc;
use std::time::Duration;

use tercet_storage::{StorageError, UploadId};

use super::closing::end_open;
use super::session::{Session, SessionState};
use crate::core::Core;

/// Longest and shortest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Starts the worker.
pub(crate) fn start_reaper(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    let idle_max = core.config.limits.upload_idle();
    let pause = (idle_max / 4).clamp(PAUSE_MIN, PAUSE_MAX);
    core.workers.spawn("upload-reaper", move |token| async move {
        while token.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let Some(core) = weak.upgrade() else { return };
            reap(&core, idle_max).await;
            core.uploads.gauge(&core.metrics);
        }
    });
}

async fn reap(core: &Arc<Core>, idle_max: Duration) {
    let sessions = core.uploads.all();
    let mut removed = 0_usize;
    for session in sessions.iter().filter(|session| session.idle() >= idle_max) {
        removed += usize::from(end(core, session).await);
    }
    match reap_disk(core, idle_max).await {
        Ok(from_disk) => removed += from_disk,
        Err(error) => tracing::warn!(%error, "cannot look for abandoned uploads on disk"),
    }
    if removed > 0 {
        tracing::info!(removed, "removed idle upload sessions");
    }
}

/// Ends a session in memory, unless somebody works on it after all. Also on the holders that it has lost
/// touch with: one that was gone for a moment has a copy still.
async fn end(core: &Arc<Core>, session: &Session) -> bool {
    let Some(mut state) = session.try_lock() else { return false };
    match std::mem::replace(&mut *state, SessionState::Gone) {
        SessionState::Open(open) => {
            end_open(core, session, *open).await;
            true
        }
        SessionState::Published { .. } | SessionState::Committed { .. } | SessionState::Gone => {
            core.uploads.remove(&session.id);
            false
        }
    }
}

/// Removes what an earlier life of this process left on disk and no client came back for. Copies held
/// for others have a reaper of their own.
async fn reap_disk(core: &Core, idle_max: Duration) -> Result<usize, StorageError> {
    let own = core.consensus.identity().node_id;
    let idle_max_ms = u64::try_from(idle_max.as_millis()).unwrap_or(u64::MAX);
    let oldest = super::now_ms().saturating_sub(idle_max_ms);
    let mut removed = 0;
    for upload in core.blobs.list_uploads().await? {
        let abandoned = upload.modified_ms <= oldest && upload.id.owner() == own;
        if abandoned && remove(core, &upload.id).await? {
            removed += 1;
        }
    }
    Ok(removed)
}

async fn remove(core: &Core, id: &UploadId) -> Result<bool, StorageError> {
    // Somebody opens it: it is not abandoned.
    let Ok(_not_while_it_is_reopened) = core.uploads.adopting(id).await else { return Ok(false) };
    if core.uploads.serves(id) {
        return Ok(false);
    }
    match core.blobs.remove_upload(id).await {
        Err(StorageError::UploadBusy(_)) => Ok(false),
        removed => removed,
    }
}
