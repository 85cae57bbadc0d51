//! One upload session on the replica that serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tercet_storage::{Algorithm, Digest, Fence, RepositoryName, UploadFile, UploadId, UploadMeta};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::error::RegistryError;
use super::holders;
use super::read::writable;
use crate::auth::{Principal, upload_id};
use crate::core::Core;
use crate::peer::{Claim, SessionReplicas};

/// How long a request waits for another one on the same session. A client that retries after a broken
/// connection may be faster than this side's notice of the break.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(3);

/// How long a session that was in order needs no second look. Less than it takes others to give a replica
/// up for gone.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);

/// An upload session. Its bytes move under the lock of `state`; what others may ask while a slow body
/// holds that lock is beside it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Random; names the replica that opened it.
    pub(crate) id: UploadId,
    /// Where the blob goes.
    pub(crate) repository: RepositoryName,
    /// The right by which this replica serves it.
    pub(super) fence: Fence,
    /// Cancelled by a `DELETE`: a body that is being read stops.
    pub(super) cancelled: CancellationToken,
    /// Cancelled when another replica has taken the session over.
    pub(super) taken_over: CancellationToken,
    offset: AtomicU64,
    closed: AtomicBool,
    opened: Instant,
    /// Milliseconds after `opened`.
    touched_ms: AtomicU64,
    /// Milliseconds after `opened` until when it is known that nobody else has taken it over.
    confirmed_ms: AtomicU64,
    state: Arc<Mutex<SessionState>>,
}

/// How far a session is.
#[derive(Debug)]
pub(super) enum SessionState {
    /// Takes bytes.
    Open(Box<OpenSession>),
    /// Verified, fsynced and published here, but not known to the group yet: a repeated `PUT` goes on
    /// from here.
    Published {
        /// What the bytes hash to.
        digest: Digest,
        /// How many there are.
        size: u64,
    },
    /// Acknowledged.
    Committed {
        /// The blob.
        digest: Digest,
    },
    /// Cancelled, failed or taken over: nothing is left of it here.
    Gone,
}

/// What an open session owns.
#[derive(Debug)]
pub(super) struct OpenSession {
    /// The bytes on this disk.
    pub(super) file: UploadFile,
    /// The way to the other holders' copies.
    pub(super) replicas: SessionReplicas,
    /// Counts against `limits.uploads_max`.
    _permit: OwnedSemaphorePermit,
}

impl OpenSession {
    /// The bytes, and the way to the copies of them. The session no longer counts as open.
    pub(super) fn into_parts(self) -> (UploadFile, SessionReplicas) {
        (self.file, self.replicas)
    }

    /// Removes what is here; the rest belongs to the replica that has taken the session over.
    pub(super) async fn leave(self, id: &UploadId) {
        if let Err(error) = self.file.abort().await {
            tracing::warn!(%id, %error, "an upload that another replica goes on with could not be removed; the reaper will try again");
        }
    }

    /// Ends the session here and on the other holders; nothing stays on any disk.
    pub(super) async fn abort(self, id: &UploadId) {
        self.replicas.abort().await;
        if let Err(error) = self.file.abort().await {
            tracing::warn!(%id, %error, "an aborted upload could not be removed; the reaper will try again");
        }
    }
}

impl Session {
    /// A session around an open file.
    pub(super) fn new(
        file: UploadFile,
        replicas: SessionReplicas,
        permit: OwnedSemaphorePermit,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: *file.id(),
            repository: file.repository().clone(),
            fence: file.fence(),
            cancelled: CancellationToken::new(),
            taken_over: CancellationToken::new(),
            offset: AtomicU64::new(file.offset()),
            closed: AtomicBool::new(false),
            opened: Instant::now(),
            touched_ms: AtomicU64::new(0),
            confirmed_ms: AtomicU64::new(0),
            state: Arc::new(Mutex::new(SessionState::Open(Box::new(OpenSession {
                file,
                replicas,
                _permit: permit,
            })))),
        })
    }

    /// Bytes that the session has; known also while a body is being read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Whether it still takes requests other than a repeated closing `PUT`.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    pub(super) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn set_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
        self.touch();
    }

    /// The right by which this replica asks the holders.
    pub(super) fn claim(&self) -> Claim {
        Claim { id: self.id, fence: self.fence }
    }

    /// Whether this replica has reason to believe that it still serves the session. One that was frozen for
    /// a while has not: another may have taken the session over meanwhile.
    pub(crate) fn is_confirmed(&self) -> bool {
        let confirmed = Duration::from_millis(self.confirmed_ms.load(Ordering::Acquire));
        self.opened.elapsed().saturating_sub(confirmed) < CONFIRMED_FOR
    }

    /// Nobody has taken it over until now.
    pub(crate) fn confirm(&self) {
        self.confirmed_ms.store(self.age_ms(), Ordering::Release);
    }

    /// Starts the idle time anew.
    pub(super) fn touch(&self) {
        self.touched_ms.store(self.age_ms(), Ordering::Release);
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long nobody has touched it.
    pub(super) fn idle(&self) -> Duration {
        let touched = Duration::from_millis(self.touched_ms.load(Ordering::Acquire));
        self.opened.elapsed().saturating_sub(touched)
    }

    /// The right to change the session; waits a bounded time for whoever has it.
    pub(super) async fn lock(&self) -> Result<OwnedMutexGuard<SessionState>, RegistryError> {
        self.touch();
        let lock = Arc::clone(&self.state).lock_owned();
        let guard = tokio::time::timeout(BUSY_WAIT, lock)
            .await
            .map_err(|_| RegistryError::UploadBusy(self.id))?;
        Ok(guard)
    }

    /// The same, if nobody has it.
    pub(super) fn try_lock(&self) -> Option<OwnedMutexGuard<SessionState>> {
        Arc::clone(&self.state).try_lock_owned().ok()
    }
}

/// Opens a session on this replica and copies of it on the other holders.
pub(crate) async fn open_session(
    core: &Core,
    repository: &RepositoryName,
    algorithm: Algorithm,
    opened_by: &Principal,
) -> Result<Arc<Session>, RegistryError> {
    writable(core).await?;
    let permit = core.uploads.permit()?;
    let id = upload_id(core.consensus.identity().node_id, opened_by);
    let meta = UploadMeta {
        repository: repository.clone(),
        algorithm,
        created_ms: super::now_ms(),
        fence: Fence::default(),
    };
    let file = core.blobs.create_upload(&id, meta).await?;
    let replicas = holders::open_replicas(core, &file).await;
    let session = Session::new(file, replicas, permit);
    core.uploads.insert(Arc::clone(&session));
    core.uploads.gauge(&core.metrics);
    Ok(session)
}
