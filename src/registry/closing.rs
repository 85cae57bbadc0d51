//! Closing a session: `PUT` makes it a blob, `DELETE` makes it nothing.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use tercet_raft::{Command, NodeId, Outcome};
use tercet_storage::{Digest, StorageError, failpoint};
use tokio::sync::OwnedMutexGuard;

use super::chunk::{Chunk, append_locked, leave_locked};
use super::error::RegistryError;
use super::holders;
use super::run;
use super::session::{OpenSession, Session, SessionState};
use crate::core::Core;

/// What becomes of a session that could not be closed and takes bytes still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The client can go on with it.
    Keep,
    /// It ends, also when the client is gone by then: it never learned of the session.
    End,
}

/// Takes the last chunk, if there is one, and makes the session a blob: verified, fsynced and
/// published on a write quorum, then committed by the group. Only then does it return.
pub(crate) async fn close(
    core: &Arc<Core>,
    session: &Arc<Session>,
    last: Option<Chunk>,
    digest: &Digest,
    on_failure: OnFailure,
) -> Result<(), RegistryError> {
    let guard = session.lock().await?;
    let (core_there, session_there) = (Arc::clone(core), Arc::clone(session));
    let digest = digest.clone();
    let (read, last) = last.map(Chunk::across).unzip();
    // In a worker: a client that goes away now must not leave a state that is half of each.
    let closed = run::to_the_end(core, "upload-close", async move {
        let mut guard = guard;
        let closed = close_locked(&core_there, &session_there, &mut guard, last, digest).await;
        if closed.is_err()
            && on_failure == OnFailure::End
            && let SessionState::Open(open) = std::mem::replace(&mut *guard, SessionState::Gone)
        {
            end_open(&core_there, &session_there, *open).await;
        }
        closed
    });
    let read = OptionFuture::from(read).map(drop);
    run::beside(read, closed).await?
}

async fn close_locked(
    core: &Arc<Core>,
    session: &Session,
    guard: &mut OwnedMutexGuard<SessionState>,
    last: Option<Chunk>,
    digest: Digest,
) -> Result<(), RegistryError> {
    // A PUT that is sent again once the bytes are published brings them in vain.
    if let Some(chunk) = last
        && matches!(**guard, SessionState::Open(_))
    {
        append_locked(core, session, guard, chunk).await?;
    }
    if let SessionState::Open(open) = &**guard
        && (open.replicas.taken_over() || session.taken_over.is_cancelled())
    {
        return Err(leave_locked(core, session, guard).await);
    }
    let (mut elsewhere, since) = (Vec::new(), Instant::now());
    match std::mem::replace(&mut **guard, SessionState::Gone) {
        SessionState::Open(open) => match publish(core, session, *open, &digest).await {
            Ok((size, acknowledged)) => {
                elsewhere = acknowledged;
                **guard = SessionState::Published { digest: digest.clone(), size };
            }
            Err(error) => {
                remember_end(core, session);
                return Err(error);
            }
        },
        SessionState::Gone => return Err(RegistryError::UploadUnknown(session.id)),
        other => **guard = other,
    }
    match &**guard {
        // The answer to the first PUT was lost.
        SessionState::Committed { digest: committed } if *committed == digest => return Ok(()),
        SessionState::Published { digest: published, .. } if *published == digest => {}
        SessionState::Published { digest: actual, .. }
        | SessionState::Committed { digest: actual } => {
            return Err(RegistryError::DigestMismatch { expected: digest, actual: actual.clone() });
        }
        SessionState::Open(_) | SessionState::Gone => {
            return Err(RegistryError::UploadUnknown(session.id));
        }
    }
    let SessionState::Published { size, .. } = **guard else {
        return Err(RegistryError::UploadUnknown(session.id));
    };
    failpoint::hit("push.blob_published");
    holders::reach_write_quorum(core, &digest, size, &elsewhere, since).await?;
    failpoint::hit("push.before_blob_commit");
    commit(core, session, &digest, size).await?;
    failpoint::hit("push.after_blob_commit");
    **guard = SessionState::Committed { digest };
    session.set_closed();
    core.uploads.remember_closed(&session.id);
    Ok(())
}

/// Publishes here and on the other holders at the same time. Answers the size and which others have
/// the blob durable now. After an error nothing of the session is left anywhere.
async fn publish(
    core: &Arc<Core>,
    session: &Session,
    open: OpenSession,
    digest: &Digest,
) -> Result<(u64, Vec<NodeId>), RegistryError> {
    let size = open.file.offset();
    let needed = holders::write_quorum(core).saturating_sub(1);
    let (file, replicas) = open.into_parts();
    let linked = replicas.live().cloned().collect();
    // The linked holders verify by themselves and keep nothing that does not hash to the digest.
    let (finished, acknowledged) =
        tokio::join!(file.finish(digest), replicas.finish(digest, size, needed));
    holders::forget_lost_copies(core, session.claim(), linked);
    core.uploads.gauge(&core.metrics);
    match finished {
        Ok(size) => Ok((size, acknowledged)),
        Err(error @ StorageError::DigestMismatch { .. }) => Err(error.into()),
        Err(error) => {
            tracing::error!(id = %session.id, %digest, %error, "an upload could not be published");
            if let Err(error) = core.blobs.remove_upload(&session.id).await {
                tracing::warn!(id = %session.id, %error, "a failed upload was not removed");
            }
            Err(error.into())
        }
    }
}

/// Makes the blob known and visible in its repository.
async fn commit(
    core: &Core,
    session: &Session,
    digest: &Digest,
    size: u64,
) -> Result<(), RegistryError> {
    let command = Command::BlobCommitted {
        digest: digest.clone(),
        size,
        repository: session.repository.clone(),
    };
    match core.consensus.propose(command).await? {
        Outcome::Done => Ok(()),
        other => Err(RegistryError::Refused(other.to_string())),
    }
}

/// Ends a session without a blob, here and on the other holders. A body that is being read for it is
/// cut off.
pub(crate) async fn cancel(core: &Arc<Core>, session: &Arc<Session>) -> Result<(), RegistryError> {
    if !session.is_open() {
        return Err(RegistryError::UploadUnknown(session.id));
    }
    session.cancelled.cancel();
    let guard = session.lock().await?;
    let (core_there, session_there) = (Arc::clone(core), Arc::clone(session));
    run::to_the_end(core, "upload-cancel", async move {
        let mut guard = guard;
        match std::mem::replace(&mut *guard, SessionState::Gone) {
            SessionState::Open(open) => {
                end_open(&core_there, &session_there, *open).await;
                Ok(())
            }
            // A body that was being read noticed first, and has cleaned up.
            SessionState::Gone => Ok(()),
            // A blob is not deleted by the end of its upload, and a repeated PUT may still come.
            other => {
                *guard = other;
                Err(RegistryError::UploadUnknown(session_there.id))
            }
        }
    })
    .await?
}

/// Remembers that a session is over: a copy that a holder still has for a moment must not be taken for
/// one whose owner is gone.
fn remember_end(core: &Core, session: &Session) {
    session.set_closed();
    core.uploads.remember_closed(&session.id);
}

/// Removes an open session here and on every holder.
pub(super) async fn end_open(core: &Arc<Core>, session: &Session, open: OpenSession) {
    remember_end(core, session);
    let linked = open.replicas.live().cloned().collect();
    open.abort(&session.id).await;
    holders::forget_lost_copies(core, session.claim(), linked);
    core.uploads.gauge(&core.metrics);
}
