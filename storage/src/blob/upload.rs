//! Upload sessions: content whose digest is not known yet, kept across restarts of the process.
//!
//! A session is a directory with `meta.json` and `data`. It is created under a temporary name and renamed, and
//! removed by renaming it away first, so that no half session is ever seen.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::layout::DataDir;
use super::pending::{Lent, blocking};
use super::publish::publish;
use super::sink::{Sink, cut_at_gap};
use super::store::{BlobStore, Inner};
use super::upload_id::UploadId;
use crate::clock::unix_ms;
use crate::error::StorageError;
use crate::{Algorithm, Digest, RepositoryName};

/// What is known of a session beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadMeta {
    /// The repository the upload was opened in. It cannot be finished in another.
    pub repository: RepositoryName,
    /// The algorithm hashed with on the way.
    pub algorithm: Algorithm,
    /// When it was opened, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Who may write to it.
    #[serde(default, skip_serializing_if = "Fence::is_first")]
    pub fence: Fence,
}

/// The right to write to a session: it grows with each replica that takes the session over, and with each
/// life of a replica. Of two, the greater one is right.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fence {
    /// How often the session was taken over.
    pub epoch: u64,
    /// Raft id of the replica that did so last; 0 while nobody has.
    pub server: u64,
}

impl Fence {
    /// Whether nobody has taken the session over.
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Self::default()
    }

    /// The right of `server`, which takes the session over now.
    #[must_use]
    pub fn taken_by(self, server: u64) -> Self {
        Self { epoch: self.epoch.saturating_add(1), server }
    }
}

/// A session on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    /// Its id.
    pub id: UploadId,
    /// What it was opened with.
    pub meta: UploadMeta,
    /// Bytes there are.
    pub offset: u64,
    /// When bytes last arrived, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// An open session. It has one writer at a time: a second open fails with [`StorageError::UploadBusy`].
/// Dropping it closes the session and keeps its bytes.
pub struct UploadFile {
    store: Arc<Inner>,
    id: UploadId,
    meta: UploadMeta,
    offset: Arc<AtomicU64>,
    session: Lent<Session>,
}

/// The sink and the right to use it. They stay together in a blocking task whose caller went away.
#[derive(Debug)]
struct Session {
    sink: Sink,
    _open: OpenUpload,
}

impl BlobStore {
    /// Opens a new session.
    pub async fn create_upload(
        &self,
        id: &UploadId,
        meta: UploadMeta,
    ) -> Result<UploadFile, StorageError> {
        let (store, id) = (Arc::clone(self.inner()), *id);
        blocking("create upload", move || {
            let open = OpenUpload::claim(&store, id)?;
            store.gate.check(0)?;
            let target = store.dir.upload(&id);
            if target.exists() {
                return Err(StorageError::UploadExists(id));
            }
            let temporary = store.dir.temporary();
            let sink = write_session(&store, &temporary, &target, &meta).inspect_err(|_| {
                // Best effort: the next start removes it too.
                fs::remove_dir_all(&temporary).ok();
            })?;
            Ok(UploadFile::new(store, id, meta, Session { sink, _open: open }))
        })
        .await
    }

    /// Opens a session that is on disk, at the offset its bytes have.
    pub async fn open_upload(&self, id: &UploadId) -> Result<Option<UploadFile>, StorageError> {
        let (store, id) = (Arc::clone(self.inner()), *id);
        blocking("open upload", move || {
            let open = OpenUpload::claim(&store, id)?;
            let path = store.dir.upload(&id);
            let Some(meta) = read_meta(&path)? else { return Ok(None) };
            let sink =
                Sink::resume(DataDir::upload_data(&path), meta.algorithm, Arc::clone(&store.gate))?;
            Ok(Some(UploadFile::new(store, id, meta, Session { sink, _open: open })))
        })
        .await
    }

    /// Removes a session that nobody has open. Returns whether there was one.
    pub async fn remove_upload(&self, id: &UploadId) -> Result<bool, StorageError> {
        let (store, id) = (Arc::clone(self.inner()), *id);
        blocking("remove upload", move || {
            let _open = OpenUpload::claim(&store, id)?;
            remove_session(&store.dir, &id)
        })
        .await
    }

    /// One session on disk, open or not.
    pub async fn upload_info(&self, id: &UploadId) -> Result<Option<UploadInfo>, StorageError> {
        let (store, id) = (Arc::clone(self.inner()), *id);
        blocking("stat upload", move || read_info(id, &store.dir.upload(&id))).await
    }

    /// Every session on disk, open or not.
    pub async fn list_uploads(&self) -> Result<Vec<UploadInfo>, StorageError> {
        let store = Arc::clone(self.inner());
        blocking("list uploads", move || {
            let directory = store.dir.uploads();
            let mut found = Vec::new();
            for entry in fs::read_dir(&directory).map_err(StorageError::io("list", &directory))? {
                let entry = entry.map_err(StorageError::io("list", &directory))?;
                if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                    found.extend(read_info(id, &entry.path())?);
                }
            }
            Ok(found)
        })
        .await
    }
}

impl UploadFile {
    fn new(store: Arc<Inner>, id: UploadId, meta: UploadMeta, session: Session) -> Self {
        let offset = session.sink.shared_offset();
        Self { store, id, meta, offset, session: Lent::new(session) }
    }

    /// The session's id.
    #[must_use]
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// The repository it was opened in.
    #[must_use]
    pub fn repository(&self) -> &RepositoryName {
        &self.meta.repository
    }

    /// The algorithm hashed with on the way.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.meta.algorithm
    }

    /// What it was opened with.
    #[must_use]
    pub fn meta(&self) -> &UploadMeta {
        &self.meta
    }

    /// Who may write to it.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.meta.fence
    }

    /// Remembers that the session was taken over, also for a later life of this process.
    pub async fn set_fence(&mut self, fence: Fence) -> Result<(), StorageError> {
        let meta = UploadMeta { fence, ..self.meta.clone() };
        let (path, written) = (self.store.dir.upload(&self.id), meta.clone());
        blocking("fence upload", move || {
            let target = DataDir::upload_meta(&path);
            let temporary = target.with_extension("new");
            write_meta(&temporary, &written)?;
            fs::rename(&temporary, &target).map_err(StorageError::io("rename to", &target))
        })
        .await?;
        self.meta = meta;
        Ok(())
    }

    /// Bytes there are. After a call that was dropped before it returned, ask [`Self::settle`] instead.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Waits for what a dropped call left running, and returns the bytes there are then.
    pub async fn settle(&mut self) -> Result<u64, StorageError> {
        self.session.settle("settle upload").await?;
        Ok(self.offset())
    }

    /// Appends `chunk`: all of it, or an error and none of it. [`StorageError::is_no_space`] tells a full disk.
    /// When the future is dropped early, the chunk is either appended or not; [`Self::settle`] tells.
    pub async fn append(&mut self, chunk: Bytes) -> Result<(), StorageError> {
        self.session.run("write upload", move |session| session.sink.append(&chunk)).await
    }

    /// Forgets everything after `offset`. What is kept is read and hashed again.
    pub async fn truncate_to(&mut self, offset: u64) -> Result<(), StorageError> {
        let actual = self.settle().await?;
        if offset > actual {
            return Err(StorageError::UploadOffset { id: self.id, wanted: offset, actual });
        }
        self.session.run("truncate upload", move |session| session.sink.truncate(offset)).await
    }

    /// Verifies that the content is `expected` and publishes it. Durable on return; returns its size in bytes.
    ///
    /// The session is gone afterwards, also on [`StorageError::DigestMismatch`]. On any other error it can be
    /// opened again.
    pub async fn finish(self, expected: &Digest) -> Result<u64, StorageError> {
        let Self { store, id, session, .. } = self;
        let session = session.take("finish upload").await?;
        let digest = expected.clone();
        let guard = store.locks.lock(&digest).await;
        blocking("finish upload", move || {
            let published = publish(&store, &digest, &session.sink, &guard);
            if matches!(published, Ok(_) | Err(StorageError::DigestMismatch { .. })) {
                // The content is where it belongs or refused; an empty session left over is removed at the
                // next start, so failing to remove it is no failure of the upload.
                if let Err(error) = remove_session(&store.dir, &id) {
                    tracing::warn!(upload = %id, %error, "cannot remove a finished upload");
                }
            }
            published
        })
        .await
    }

    /// Removes the session and its bytes.
    pub async fn abort(self) -> Result<(), StorageError> {
        let Self { store, id, session, .. } = self;
        let session = session.take("abort upload").await?;
        blocking("abort upload", move || {
            remove_session(&store.dir, &id)?;
            drop(session);
            Ok(())
        })
        .await
    }
}

impl fmt::Debug for UploadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadFile")
            .field("id", &self.id)
            .field("meta", &self.meta)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Removes what a crash left in the directory of uploads: temporary files, sessions that cannot be opened, and what
/// follows a gap in one that can.
pub(super) fn remove_stray_uploads(dir: &DataDir) -> Result<(), StorageError> {
    let directory = dir.uploads();
    for entry in fs::read_dir(&directory).map_err(StorageError::io("list", &directory))? {
        let path = entry.map_err(StorageError::io("list", &directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id: Option<UploadId> = name.parse().ok();
        let usable = match id {
            Some(id) if read_info(id, &path)?.is_some() => {
                cut_at_gap(&DataDir::upload_data(&path))?;
                true
            }
            Some(_) => false,
            // A file somebody else put here is not ours to remove.
            None => !DataDir::is_temporary(name),
        };
        if !usable {
            tracing::info!(path = %path.display(), "removing an unfinished upload left by a crash");
            remove_any(&path)?;
        }
    }
    Ok(())
}

fn write_session(
    store: &Inner,
    temporary: &Path,
    target: &Path,
    meta: &UploadMeta,
) -> Result<Sink, StorageError> {
    fs::create_dir(temporary).map_err(StorageError::io("create directory", temporary))?;
    let data = DataDir::upload_data(temporary);
    let mut sink = Sink::create(data, meta.algorithm, Arc::clone(&store.gate), None)?;
    write_meta(&DataDir::upload_meta(temporary), meta)?;
    fs::rename(temporary, target).map_err(StorageError::io("rename to", target))?;
    sink.moved_to(DataDir::upload_data(target));
    Ok(sink)
}

/// Unsynced: nobody was promised that a session outlives a power failure, and opening one is cheap.
fn write_meta(path: &Path, meta: &UploadMeta) -> Result<(), StorageError> {
    let json = serde_json::to_vec(meta)
        .map_err(|error| StorageError::io("encode", path)(io::Error::other(error)))?;
    fs::write(path, json).map_err(StorageError::io("write", path))
}

/// `None` if there is no session at `path`, or none that can be used.
fn read_meta(path: &Path) -> Result<Option<UploadMeta>, StorageError> {
    let meta = DataDir::upload_meta(path);
    match fs::read(&meta) {
        Ok(bytes) if bytes.len() <= META_BYTES_MAX => Ok(serde_json::from_slice(&bytes).ok()),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("read", &meta)(error)),
    }
}

fn read_info(id: UploadId, path: &Path) -> Result<Option<UploadInfo>, StorageError> {
    let Some(meta) = read_meta(path)? else { return Ok(None) };
    let data = DataDir::upload_data(path);
    match fs::metadata(&data) {
        Ok(stat) => {
            let modified_ms = unix_ms(stat.modified().map_err(StorageError::io("stat", &data))?);
            Ok(Some(UploadInfo { id, meta, offset: stat.len(), modified_ms }))
        }
        // It was published or removed a moment ago.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io("stat", &data)(error)),
    }
}

fn remove_session(dir: &DataDir, id: &UploadId) -> Result<bool, StorageError> {
    let path = dir.upload(id);
    let temporary = dir.temporary();
    match fs::rename(&path, &temporary) {
        Ok(()) => remove_any(&temporary).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::io("remove", &path)(error)),
    }
}

fn remove_any(path: &Path) -> Result<(), StorageError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.map_err(StorageError::io("remove", path))
}

/// The largest `meta.json` that can be one.
const META_BYTES_MAX: usize = 4096;

/// The right to use a session, until dropped.
#[derive(Debug)]
struct OpenUpload {
    store: Arc<Inner>,
    id: UploadId,
}

impl OpenUpload {
    fn claim(store: &Arc<Inner>, id: UploadId) -> Result<Self, StorageError> {
        if store.open_uploads().insert(id) {
            Ok(Self { store: Arc::clone(store), id })
        } else {
            Err(StorageError::UploadBusy(id))
        }
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        self.store.open_uploads().remove(&self.id);
    }
}
