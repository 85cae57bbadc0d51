//! The far end of one holder's queue: turns commands into requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::stream;
use tercet_storage::{Algorithm, Digest, RepositoryName};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::claim::Claim;
use super::client::Client;
use super::directory::Peer;
use super::error::PeerError;

/// `412 Precondition Failed`: see [`HeldError::TakenOver`](super::HeldError::TakenOver).
const TAKEN_OVER_STATUS: u16 = 412;

/// What the owner of a session wants of one holder, in order.
#[derive(Debug)]
pub(super) enum Command {
    /// The next bytes; the permit is their place in the queue.
    Chunk(Bytes, OwnedSemaphorePermit),
    /// Confirm that all bytes so far have arrived. Dropped without an answer if they have not.
    EndPatch(oneshot::Sender<()>),
    /// Verify, fsync, publish. Dropped without an answer if that failed.
    Finish {
        /// What the bytes must hash to.
        digest: Digest,
        /// How many there must be.
        size: u64,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
    /// Remove the session.
    Abort,
}

/// One holder of one session.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) peer: Peer,
    pub(super) claim: Claim,
    pub(super) repository: RepositoryName,
    pub(super) algorithm: Algorithm,
    pub(super) offset: u64,
    /// Set when the holder says that another replica has taken the session over.
    pub(super) taken_over: Arc<AtomicBool>,
}

impl Link {
    /// Works through the commands until the owner lets go of the queue or the holder fails; the
    /// owner notices the latter by the closed queue.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        if let Err(error) = self.work(&mut commands).await {
            if error.status() == Some(TAKEN_OVER_STATUS) {
                self.taken_over.store(true, Ordering::Release);
            }
            tracing::warn!(peer = %self.peer.name, session = %self.claim.id, %error, "holder lost");
        }
    }

    async fn work(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), PeerError> {
        let Self { client, peer, claim, .. } = &*self;
        client.create_session(peer, claim, &self.repository, self.algorithm, self.offset).await?;
        let mut next = commands.recv().await;
        while let Some(command) = next {
            next = match command {
                Command::Chunk(chunk, place) => self.stream((chunk, place), commands).await?,
                Command::EndPatch(done) => {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                    commands.recv().await
                }
                Command::Finish { digest, size, done } => {
                    self.finish(&digest, size).await?;
                    let _ = done.send(());
                    commands.recv().await
                }
                Command::Abort => {
                    return self.client.delete_session(&self.peer, &self.claim).await;
                }
            };
        }
        Ok(())
    }

    /// One request whose body is this chunk and all that follow without another command between.
    /// Returns that command.
    async fn stream(
        &mut self,
        first: (Bytes, OwnedSemaphorePermit),
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<Option<Command>, PeerError> {
        let (body, taken) = mpsc::channel::<(Bytes, OwnedSemaphorePermit)>(1);
        let chunks = stream::unfold(taken, |mut taken| async move {
            // The place in the queue is free when the connection has the bytes.
            let (chunk, _place) = taken.recv().await?;
            Some((Ok::<_, Infallible>(chunk), taken))
        });
        let mut end = self.offset;
        let request = self.client.append_session(&self.peer, &self.claim, self.offset, chunks);
        tokio::pin!(request);
        let early = |answer: Result<u64, PeerError>| match answer {
            Err(error) => error,
            Ok(offset) => self.broken(format!("answered {offset} before the end of the body")),
        };

        let mut chunk = first;
        let command = loop {
            end += chunk.0.len() as u64;
            // The request fails by itself when the holder takes nothing for too long.
            tokio::select! {
                answer = &mut request => return Err(early(answer)),
                sent = body.send(chunk) => if sent.is_err() {
                    return Err(early((&mut request).await));
                }
            }
            let next = tokio::select! {
                answer = &mut request => return Err(early(answer)),
                next = commands.recv() => next,
            };
            match next {
                Some(Command::Chunk(bytes, place)) => chunk = (bytes, place),
                other => break other,
            }
        };
        drop(body);
        let reached = request.await?;
        if reached != end {
            return Err(self.broken(format!("has {reached} bytes of {end}")));
        }
        self.offset = end;
        Ok(command)
    }

    /// A copy that cannot be finished is of no use to anybody: it is removed.
    async fn finish(&self, digest: &Digest, size: u64) -> Result<(), PeerError> {
        let finished = self.client.finish_session(&self.peer, &self.claim, digest, size).await;
        if let Err(error) = &finished
            && error.status().is_some()
        {
            // Best effort: the holder's reaper removes what this does not.
            let _ = self.client.delete_session(&self.peer, &self.claim).await;
        }
        finished
    }

    fn broken(&self, reason: String) -> PeerError {
        PeerError::Broken { peer: self.peer.name.clone(), operation: "append to session", reason }
    }
}
