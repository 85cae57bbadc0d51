//! Copies of other replicas' upload sessions that this replica holds.
//!
//! The owner of a session writes to its holders through [`Client`](super::Client); when it dies,
//! one of them adopts the session: [`HeldSessions::take`] hands the file over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use tercet_raft::NodeId;
use tercet_storage::{
    Algorithm, BlobStore, Clock, Digest, Fence, RepositoryName, StorageError, SystemClock,
    UploadFile, UploadId, UploadMeta,
};
use thiserror::Error;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::wire::SessionInfo;
use crate::pieces::Pieces;

/// Most sessions held for others; each has an open file.
const HELD_MAX: usize = 2_048;
/// How long one request waits for another on the same session. They overlap only when the owner
/// gave up on the earlier one.
const LOCK_DEADLINE: Duration = Duration::from_secs(3);
/// How long an append may wait for its next bytes. Longer than a slow client may make the owner
/// wait, because then the owner has none to send.
const BODY_STALL: Duration = Duration::from_secs(60);

/// A request on a held session was not carried out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeldError {
    /// There is no such session here.
    #[error("no copy of upload session {0} here")]
    Unknown(UploadId),
    /// Another request works on it.
    #[error("upload session {0} is in use")]
    Busy(UploadId),
    /// This replica answers for the session itself.
    #[error("upload session {0} belongs to this replica")]
    Own(UploadId),
    /// Another replica has taken the session over from whoever asks.
    #[error("upload session {0} was taken over by another replica")]
    TakenOver(UploadId),
    /// It ends elsewhere than the request says.
    #[error("upload session is at offset {offset}")]
    Offset {
        /// Where it ends.
        offset: u64,
    },
    /// No more sessions are taken.
    #[error("{HELD_MAX} upload sessions are held already")]
    TooMany,
    /// The bytes stopped before their end. What came is kept.
    #[error("the body broke off: {reason}")]
    Cut {
        /// Why.
        reason: String,
    },
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The sessions that this replica holds for others. Clones share them.
#[derive(Clone)]
pub struct HeldSessions {
    inner: Arc<Inner>,
}

struct Inner {
    blobs: BlobStore,
    own: OnceLock<NodeId>,
    sessions: Mutex<HashMap<UploadId, Arc<Held>>>,
}

/// One session in memory.
struct Held {
    /// `None` while a request works on it, and after one that was cut off: the file on disk then
    /// says where it ends.
    file: Arc<tokio::sync::Mutex<Option<UploadFile>>>,
    /// Bytes there are; read without the lock.
    offset: AtomicU64,
    touched: Mutex<Instant>,
    /// Cancelled when the session is taken away from whoever works on it.
    evicted: CancellationToken,
}

impl std::fmt::Debug for HeldSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldSessions").field("open", &self.open_count()).finish()
    }
}

impl HeldSessions {
    /// None in memory yet; those on disk are opened when they are asked for.
    #[must_use]
    pub fn new(blobs: BlobStore) -> Self {
        Self {
            inner: Arc::new(Inner {
                blobs,
                own: OnceLock::new(),
                sessions: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// Sets this replica's id: its own sessions are none of this module's business.
    pub fn set_own(&self, node_id: NodeId) {
        // An identity is for life; a second call says the same.
        let _ = self.inner.own.set(node_id);
    }

    /// How many have a file open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.sessions().len()
    }

    /// Makes a session of `offset` bytes: a new one when `offset` is 0, or what is there, cut back.
    ///
    /// # Errors
    /// [`HeldError::Offset`] when there are fewer bytes than `offset`.
    pub async fn create(
        &self,
        claim: &Claim,
        repository: &RepositoryName,
        algorithm: Algorithm,
        offset: u64,
    ) -> Result<(), HeldError> {
        let id = &claim.id;
        self.refuse_own(id)?;
        if let Some(known) = self.known_fence(claim).await?
            && known < claim.fence
        {
            self.hand_over(claim).await?;
        }
        let mut lease = match self.lease(id).await {
            Ok(lease) => lease,
            Err(HeldError::Unknown(_)) if offset == 0 => {
                if self.open_count() >= HELD_MAX {
                    return Err(HeldError::TooMany);
                }
                let meta = UploadMeta {
                    repository: repository.clone(),
                    algorithm,
                    created_ms: SystemClock.now_ms(),
                    fence: claim.fence,
                };
                let file = self.inner.blobs.create_upload(id, meta).await?;
                let mut lease = self.locked(id).await?;
                lease.file = Some(file);
                lease
            }
            Err(HeldError::Unknown(_)) => return Err(HeldError::Offset { offset: 0 }),
            Err(error) => return Err(error),
        };
        let at = lease.offset();
        if at < offset {
            return Err(HeldError::Offset { offset: at });
        }
        if at > offset
            && let Some(mut file) = lease.file.take()
        {
            file.truncate_to(offset).await?;
            lease.file = Some(file);
        }
        Ok(())
    }

    /// The right that is known to be the greatest; `None` if the session is not here.
    ///
    /// # Errors
    /// [`HeldError::TakenOver`] when it is greater than the one claimed.
    async fn known_fence(&self, claim: &Claim) -> Result<Option<Fence>, HeldError> {
        let known = self.inner.blobs.upload_info(&claim.id).await?.map(|info| info.meta.fence);
        match known {
            Some(fence) if fence > claim.fence => Err(HeldError::TakenOver(claim.id)),
            known => Ok(known),
        }
    }

    /// Takes the copy away from whoever wrote to it by a smaller right, such as a stream that was never
    /// ended because its sender is frozen.
    async fn hand_over(&self, claim: &Claim) -> Result<(), HeldError> {
        let Some(mut file) = self.take(&claim.id).await? else { return Ok(()) };
        file.set_fence(claim.fence).await?;
        let mut lease = self.locked(&claim.id).await?;
        lease.file = Some(file);
        Ok(())
    }

    /// Appends `body` to a session that ends at `offset`; returns where it ends then.
    ///
    /// # Errors
    /// [`HeldError::Offset`] when it ends elsewhere; [`HeldError::Cut`] when the body breaks off,
    /// with what came of it kept.
    pub async fn append<S, E>(&self, claim: &Claim, offset: u64, body: S) -> Result<u64, HeldError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let id = &claim.id;
        let mut lease = self.lease_for(claim).await?;
        let at = lease.offset();
        if at != offset {
            return Err(HeldError::Offset { offset: at });
        }
        let evicted = lease.held.evicted.clone();
        // Out of the lease while it is written: if this request is cut off in the middle of a
        // write, the file is dropped and the next request looks at the disk.
        let Some(mut file) = lease.file.take() else { return Err(HeldError::Unknown(*id)) };
        let mut pieces = Pieces::of(body);
        let cut = loop {
            let next = tokio::select! {
                biased;
                () = evicted.cancelled() => {
                    // For whoever has taken it over.
                    lease.file = Some(file);
                    return Err(HeldError::TakenOver(*id));
                }
                next = tokio::time::timeout(BODY_STALL, pieces.next()) => next,
            };
            match next {
                Ok(Some(Ok(chunk))) => {
                    if let Err(error) = pieces.join_during(file.append(chunk)).await {
                        if error.is_no_space() {
                            self.give_back(file).await;
                        }
                        return Err(error.into());
                    }
                    lease.held.note(file.offset());
                }
                Ok(Some(Err(error))) => break Some(error.to_string()),
                Ok(None) => break None,
                Err(_) => break Some(format!("nothing for {BODY_STALL:?}")),
            }
        };
        let at = file.offset();
        lease.file = Some(file);
        match cut {
            None => Ok(at),
            Some(reason) => Err(HeldError::Cut { reason }),
        }
    }

    /// What there is of a session, whether this replica holds it for another, owns it or adopted
    /// it.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub async fn info(&self, id: &UploadId) -> Result<Option<SessionInfo>, StorageError> {
        let Some(upload) = self.inner.blobs.upload_info(id).await? else { return Ok(None) };
        let held = self.sessions().get(id).cloned();
        let written = held.map_or(0, |held| held.offset.load(Ordering::Acquire));
        Ok(Some(SessionInfo {
            offset: upload.offset.max(written),
            repository: upload.meta.repository,
            algorithm: upload.meta.algorithm.name().to_owned(),
            fence: upload.meta.fence,
        }))
    }

    /// Verifies, fsyncs and publishes. Saying it twice is an error: a blob of that name may be here
    /// for another reason, and nothing was verified the second time.
    ///
    /// # Errors
    /// [`HeldError::Offset`] when there are not `size` bytes; a storage error when they have
    /// another digest, and the session is gone then.
    pub async fn finish(&self, claim: &Claim, digest: &Digest, size: u64) -> Result<(), HeldError> {
        let id = &claim.id;
        let mut lease = self.lease_for(claim).await?;
        let at = lease.offset();
        if at != size {
            return Err(HeldError::Offset { offset: at });
        }
        let Some(file) = lease.file.take() else { return Err(HeldError::Unknown(*id)) };
        let result = file.finish(digest).await;
        self.forget(id);
        result?;
        Ok(())
    }

    /// Removes a session. None is no error.
    ///
    /// # Errors
    /// When another request does not let go of it, or the disk fails.
    pub async fn delete(&self, claim: &Claim) -> Result<(), HeldError> {
        self.refuse_own(&claim.id)?;
        self.known_fence(claim).await?;
        match self.take(&claim.id).await? {
            Some(file) => file.abort().await?,
            None => return Ok(()),
        }
        Ok(())
    }

    /// Hands a session over to this replica's own uploads: the owner is gone, this replica adopts
    /// it. Whoever appends to it at the moment is interrupted. `None` if it is not here.
    ///
    /// # Errors
    /// When another request does not let go of it, or the disk fails.
    pub async fn take(&self, id: &UploadId) -> Result<Option<UploadFile>, HeldError> {
        if let Some(held) = self.sessions().get(id) {
            held.evicted.cancel();
        }
        match self.lease(id).await {
            Ok(mut lease) => {
                let file = lease.file.take();
                self.forget(id);
                Ok(file)
            }
            Err(HeldError::Unknown(_)) => Ok(None),
            Err(error) => {
                // What is left in memory is marked as taken; the next request looks at the disk.
                self.forget(id);
                Err(error)
            }
        }
    }

    /// Removes the sessions that nobody touched for `idle`: their owner is gone, and nobody
    /// adopted them. Returns how many.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub async fn reap(&self, idle: Duration) -> Result<usize, StorageError> {
        let Some(own) = self.inner.own.get().copied() else { return Ok(0) };
        self.sessions().retain(|_, held| held.idle() < idle || Arc::strong_count(held) > 1);
        let oldest = SystemClock.now_ms().saturating_sub(millis(idle));
        let mut removed = 0;
        for upload in self.inner.blobs.list_uploads().await? {
            let in_memory = self.sessions().contains_key(&upload.id);
            if upload.id.owner() == own || in_memory || upload.modified_ms > oldest {
                continue;
            }
            match self.inner.blobs.remove_upload(&upload.id).await {
                Ok(true) => removed += 1,
                // Adopted by this replica, whose own reaper looks after it.
                Ok(false) | Err(StorageError::UploadBusy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// A worker: reaps until it is told to stop.
    pub async fn keep_reaping(self, idle: Duration, token: CancellationToken) {
        let pause = (idle / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
        while token.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            match self.reap(idle).await {
                Ok(0) => {}
                Ok(removed) => {
                    tracing::info!(removed, "removed abandoned upload sessions of others")
                }
                Err(error) => tracing::warn!(%error, "cannot look for abandoned upload sessions"),
            }
        }
    }

    /// A copy that cannot grow on a full disk is of no use to anybody; its bytes are.
    async fn give_back(&self, file: UploadFile) {
        let id = *file.id();
        self.forget(&id);
        if let Err(error) = file.abort().await {
            tracing::warn!(%id, %error, "a copy that the disk has no room for was not removed");
        }
    }

    fn refuse_own(&self, id: &UploadId) -> Result<(), HeldError> {
        if self.inner.own.get() == Some(&id.owner()) {
            return Err(HeldError::Own(*id));
        }
        Ok(())
    }

    /// [`Self::lease`] for whoever may write to it.
    async fn lease_for(&self, claim: &Claim) -> Result<Lease, HeldError> {
        self.refuse_own(&claim.id)?;
        // Also while this replica has taken it over itself, and its file is in use.
        self.known_fence(claim).await?;
        let lease = self.lease(&claim.id).await?;
        match lease.file.as_ref().map(UploadFile::fence) {
            Some(fence) if fence > claim.fence => Err(HeldError::TakenOver(claim.id)),
            _ => Ok(lease),
        }
    }

    /// The session with its file, alone.
    async fn lease(&self, id: &UploadId) -> Result<Lease, HeldError> {
        let mut lease = self.locked(id).await?;
        if lease.file.is_some() {
            return Ok(lease);
        }
        match self.inner.blobs.open_upload(id).await {
            Ok(Some(file)) => {
                lease.file = Some(file);
                Ok(lease)
            }
            Ok(None) => {
                self.forget(id);
                Err(HeldError::Unknown(*id))
            }
            Err(error) => {
                self.forget(id);
                match error {
                    StorageError::UploadBusy(id) => Err(HeldError::Busy(id)),
                    error => Err(error.into()),
                }
            }
        }
    }

    async fn locked(&self, id: &UploadId) -> Result<Lease, HeldError> {
        let held = Arc::clone(self.sessions().entry(*id).or_insert_with(|| Arc::new(Held::new())));
        let lock = Arc::clone(&held.file).lock_owned();
        match tokio::time::timeout(LOCK_DEADLINE, lock).await {
            Ok(mut slot) => Ok(Lease { file: slot.take(), held, slot }),
            Err(_) => Err(HeldError::Busy(*id)),
        }
    }

    fn forget(&self, id: &UploadId) {
        self.sessions().remove(id);
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<UploadId, Arc<Held>>> {
        self.inner.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new() -> Self {
        Self {
            file: Arc::new(tokio::sync::Mutex::new(None)),
            offset: AtomicU64::new(0),
            touched: Mutex::new(Instant::now()),
            evicted: CancellationToken::new(),
        }
    }

    fn note(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle(&self) -> Duration {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Sole use of a session. What is in `file` when it is dropped goes back for the next one.
struct Lease {
    file: Option<UploadFile>,
    held: Arc<Held>,
    slot: OwnedMutexGuard<Option<UploadFile>>,
}

impl Lease {
    fn offset(&self) -> u64 {
        self.file.as_ref().map_or(0, UploadFile::offset)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.held.note(file.offset());
            *self.slot = Some(file);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
