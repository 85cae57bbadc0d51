//! Taking bytes into a session: written and hashed here, sent to the other holders at the same time.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::OwnedMutexGuard;

use super::closing::end_open;
use super::error::RegistryError;
use super::run;
use super::session::{OpenSession, Session, SessionState};
use crate::core::Core;
use crate::pieces::across;

/// The body of a `PATCH` or `PUT`.
pub(crate) struct ChunkBody {
    /// The bytes as they come.
    pub(crate) stream: BoxStream<'static, io::Result<Bytes>>,
    /// `Content-Length`, if there is one.
    pub(crate) length: Option<u64>,
}

/// A chunk of a blob.
pub(crate) struct Chunk {
    /// Its bytes.
    pub(crate) body: ChunkBody,
    /// Where it belongs (`Content-Range`); at the end of what is there, if absent.
    pub(crate) range: Option<Range<u64>>,
}

impl Chunk {
    /// The same chunk for a worker, and what reads its bytes here: see [`across`].
    pub(super) fn across(self) -> (impl Future<Output = ()> + Send, Self) {
        let (read, stream) = across(self.body.stream);
        let body = ChunkBody { stream, length: self.body.length };
        (read, Self { body, range: self.range })
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunk")
            .field("length", &self.body.length)
            .field("range", &self.range)
            .finish()
    }
}

/// Appends a chunk and answers the session's new offset.
pub(crate) async fn append(
    core: &Arc<Core>,
    session: &Arc<Session>,
    chunk: Chunk,
) -> Result<u64, RegistryError> {
    let guard = session.lock().await?;
    let (core_there, session_there) = (Arc::clone(core), Arc::clone(session));
    let (read, chunk) = chunk.across();
    // In a worker: a client that goes away must not drop a write half-way.
    let appended = run::to_the_end(core, "upload", async move {
        let mut guard = guard;
        append_locked(&core_there, &session_there, &mut guard, chunk).await
    });
    run::beside(read, appended).await?
}

/// The same for a caller that has the session's lock.
pub(super) async fn append_locked(
    core: &Arc<Core>,
    session: &Session,
    guard: &mut OwnedMutexGuard<SessionState>,
    chunk: Chunk,
) -> Result<u64, RegistryError> {
    let SessionState::Open(open) = &mut **guard else {
        return Err(RegistryError::UploadUnknown(session.id));
    };
    let announced = check_place(session, open.file.offset(), &chunk)?;
    let taken = take(core, session, open, chunk.body.stream, announced).await;
    if open.replicas.taken_over() || session.taken_over.is_cancelled() {
        // Nothing of it may be acknowledged here, and the copies elsewhere are no longer this replica's.
        return Err(leave_locked(core, session, guard).await);
    }
    if open.replicas.is_whole() {
        session.confirm();
    }
    match taken {
        Ok(offset) => Ok(offset),
        Err(Taken::Refused(error)) => Err(error),
        Err(Taken::Spoilt(error)) => {
            // A full disk, or a DELETE meanwhile: what is there cannot or must not grow on.
            if let SessionState::Open(open) = std::mem::replace(&mut **guard, SessionState::Gone) {
                end_open(core, session, *open).await;
            }
            Err(error)
        }
    }
}

/// Lets go of a session that another replica has taken over; answers what the client is told.
pub(super) async fn leave_locked(
    core: &Arc<Core>,
    session: &Session,
    guard: &mut OwnedMutexGuard<SessionState>,
) -> RegistryError {
    core.uploads.remove(&session.id);
    if let SessionState::Open(open) = std::mem::replace(&mut **guard, SessionState::Gone) {
        open.leave(&session.id).await;
    }
    core.uploads.gauge(&core.metrics);
    RegistryError::Unavailable(format!(
        "upload session {} was taken over by another replica meanwhile; ask for its offset and go on from there",
        session.id
    ))
}

/// Judges `Content-Range` and `Content-Length` before a byte is taken; answers how many bytes there
/// have to be, if that is known.
fn check_place(
    session: &Session,
    offset: u64,
    chunk: &Chunk,
) -> Result<Option<u64>, RegistryError> {
    let Some(range) = &chunk.range else { return Ok(chunk.body.length) };
    let length = range.end - range.start;
    if chunk.body.length.is_some_and(|announced| announced != length) {
        return Err(RegistryError::BodyLength { expected: length });
    }
    if range.start != offset {
        return Err(RegistryError::OffsetMismatch {
            id: session.id,
            repository: session.repository.clone(),
            offset,
            start: range.start,
        });
    }
    Ok(Some(length))
}

/// How taking a body can fail.
enum Taken {
    /// What was taken before is good and stays.
    Refused(RegistryError),
    /// The session is over.
    Spoilt(RegistryError),
}

async fn take(
    core: &Core,
    session: &Session,
    open: &mut OpenSession,
    mut stream: BoxStream<'static, io::Result<Bytes>>,
    announced: Option<u64>,
) -> Result<u64, Taken> {
    let mut received: u64 = 0;
    loop {
        let next = tokio::select! {
            biased;
            () = session.cancelled.cancelled() => {
                return Err(Taken::Spoilt(RegistryError::UploadUnknown(session.id)));
            }
            () = session.taken_over.cancelled() => {
                return Err(Taken::Refused(RegistryError::UploadBusy(session.id)));
            }
            () = core.workers.token().cancelled() => {
                return Err(Taken::Refused(RegistryError::Unavailable("the replica is stopping".to_owned())));
            }
            next = stream.next() => next,
        };
        let piece = match next {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                // Resumable: the client asks for the offset and goes on from there.
                open.replicas.end_patch().await;
                if error.kind() == io::ErrorKind::TimedOut {
                    return Err(Taken::Refused(RegistryError::BodyTooSlow { received }));
                }
                let reason = error.to_string();
                return Err(Taken::Refused(RegistryError::BodyBroken { received, reason }));
            }
            None => break,
        };
        let total = received + piece.len() as u64;
        if let Some(expected) = announced.filter(|expected| total > *expected) {
            open.replicas.end_patch().await;
            return Err(Taken::Refused(RegistryError::BodyLength { expected }));
        }
        received = total;
        core.metrics.blob_bytes_received.inc_by(piece.len() as u64);
        let (written, ()) =
            tokio::join!(open.file.append(piece.clone()), open.replicas.send(piece));
        written.map_err(|error| Taken::Spoilt(error.into()))?;
        session.set_offset(open.file.offset());
    }
    open.replicas.end_patch().await;
    if let Some(expected) = announced.filter(|expected| *expected != received) {
        return Err(Taken::Refused(RegistryError::BodyLength { expected }));
    }
    Ok(open.file.offset())
}
