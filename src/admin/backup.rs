//! A backup seen from the replica: it takes a checkpoint, keeps it and the blobs for as long as somebody
//! asks, and hands out the checkpoint's files. Blobs are read through the routes for peers.

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use tercet_raft::{Checkpoint, Command, Freshness, Outcome, ProposeError};
use tercet_storage::{Clock, SystemClock, utc_stamp};
use tokio_util::io::ReaderStream;

use super::audit::Change;
use super::error::AdminError;
use crate::backup::wire::{BackupBegun, HOLD_SECONDS, Member, MetadataFile, is_file_name};
use crate::backup::{hash_file, wire};
use crate::core::Core;
use crate::peer::Peer;

/// Backups that are taken of one replica at a time.
const BACKUPS_MAX: usize = 4;
/// Bytes read from a checkpoint's file at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Pause between two looks for checkpoints that nobody asks for any more.
const REAPING_PAUSE: Duration = Duration::from_secs(5);

/// The backups that are being taken of this replica.
#[derive(Default)]
struct Backups {
    running: Mutex<HashMap<String, Running>>,
}

struct Running {
    /// Its directory goes with it.
    checkpoint: Checkpoint,
    files: Vec<MetadataFile>,
    asked: Instant,
}

impl Backups {
    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/admin/backups", post(begin))
        .route("/admin/backups/{id}/end", post(end))
        .route("/admin/backups/{id}/hold", post(hold))
        .route("/admin/backups/{id}/files/{name}", get(file))
        .layer(Extension(Arc::new(Backups::default())))
}

async fn begin(
    State(core): State<Arc<Core>>,
    Extension(backups): Extension<Arc<Backups>>,
) -> Result<(Change, Json<BackupBegun>), AdminError> {
    if backups.running().len() >= BACKUPS_MAX {
        return Err(AdminError::conflict(format!(
            "{BACKUPS_MAX} backups of this replica are running"
        ))
        .hint("wait for one of them; those that were killed end by themselves after ten minutes"));
    }
    let created_ms = SystemClock.now_ms();
    let consensus = &core.consensus;
    let own = consensus.identity();
    // Two backups may begin in one second.
    let salt: u16 = rand::random();
    let name = format!("{}-{}-{salt:04x}", utc_stamp(created_ms), own.name);
    // Before the checkpoint: what it references must not go between the two.
    hold_collection(&core, &name, until_ms(created_ms)).await?;
    // Everything acknowledged before the backup was asked for is in it.
    if consensus.read_barrier().await != Freshness::Fresh {
        release(&core, &name).await;
        return Err(AdminError::unavailable("no leader answers: this replica may be behind")
            .hint("ask a replica that reaches a majority of the members"));
    }
    let taken = take(&core).await;
    let (checkpoint, files) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            release(&core, &name).await;
            return Err(AdminError::internal(format!("cannot take a checkpoint: {error}")));
        }
    };
    let feature = consensus.read(|meta| meta.feature_level())??;
    let begun = BackupBegun {
        id: name.clone(),
        cluster_id: own.cluster_id.clone(),
        replica: own.name.clone(),
        tercet_version: crate::VERSION.to_owned(),
        feature_level: feature.map_or(1, |record| record.level),
        index: checkpoint.index,
        term: checkpoint.term,
        created_ms,
        files: files.clone(),
        members: members(&core),
    };
    let running = Running { checkpoint, files, asked: Instant::now() };
    backups.running().insert(name.clone(), running);
    watch(&core, &backups, name.clone());
    Ok((Change::new(format!("began backup {name} at index {}", begun.index)), Json(begun)))
}

/// Lets go of a checkpoint that nobody has asked for in a while: the backup was killed.
fn watch(core: &Arc<Core>, backups: &Arc<Backups>, id: String) {
    let (keeper, backups) = (Arc::clone(core), Arc::clone(backups));
    core.workers.spawn("backup", |stop| async move {
        let patience = Duration::from_secs(wire::HOLD_SECONDS);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REAPING_PAUSE) => {}
            }
            let abandoned = match backups.running().get(&id) {
                None => return,
                Some(running) => running.asked.elapsed() > patience,
            };
            if abandoned {
                tracing::warn!(backup = %id, "nobody asks for this backup any more");
                backups.running().remove(&id);
                release(&keeper, &id).await;
                return;
            }
        }
    });
}

async fn hold(
    State(core): State<Arc<Core>>,
    Extension(backups): Extension<Arc<Backups>>,
    Path(id): Path<String>,
) -> Result<Json<()>, AdminError> {
    match backups.running().get_mut(&id) {
        Some(running) => running.asked = Instant::now(),
        None => return Err(unknown(&id)),
    }
    hold_collection(&core, &id, until_ms(SystemClock.now_ms())).await?;
    Ok(Json(()))
}

async fn file(
    Extension(backups): Extension<Arc<Backups>>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, AdminError> {
    let (checkpoint, size) = match backups.running().get_mut(&id) {
        None => return Err(unknown(&id)),
        Some(running) => {
            running.asked = Instant::now();
            let known = running.files.iter().find(|file| file.name == name);
            let size = known.map(|file| file.size);
            (running.checkpoint.clone(), size)
        }
    };
    let Some(size) = size.filter(|_| is_file_name(&name)) else {
        return Err(AdminError::not_found(format!("backup {id} has no file `{name}`")));
    };
    let file = tokio::fs::File::open(checkpoint.path().join(&name)).await?;
    let stream = ReaderStream::with_capacity(file, CHUNK_BYTES);
    // The files stay until the last of them is sent.
    let stream = futures_util::StreamExt::map(stream, move |chunk| {
        let _ = &checkpoint;
        chunk
    });
    Ok(([(header::CONTENT_LENGTH, size)], Body::from_stream(stream)).into_response())
}

async fn end(
    State(core): State<Arc<Core>>,
    Extension(backups): Extension<Arc<Backups>>,
    Path(id): Path<String>,
) -> Result<(Change, Json<()>), AdminError> {
    let Some(running) = backups.running().remove(&id) else { return Err(unknown(&id)) };
    drop(running);
    release(&core, &id).await;
    Ok((Change::new(format!("ended backup {id}")), Json(())))
}

async fn take(core: &Core) -> std::io::Result<(Checkpoint, Vec<MetadataFile>)> {
    let checkpoint = core.consensus.checkpoint().await?;
    let path = checkpoint.path().to_owned();
    let files =
        tokio::task::spawn_blocking(move || list(&path)).await.map_err(std::io::Error::other)??;
    Ok((checkpoint, files))
}

fn list(directory: &FilePath) -> std::io::Result<Vec<MetadataFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        // LOCK is made anew by whoever opens the checkpoint; LOG* is RocksDB's diary.
        if name == "LOCK" || name.starts_with("LOG") || !is_file_name(&name) {
            continue;
        }
        let (size, digest) = hash_file(&path)?;
        files.push(MetadataFile { name, size, digest });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn members(core: &Core) -> Vec<Member> {
    let own = core.consensus.identity().node_id;
    let mut members: Vec<Peer> = core.consensus.members().iter().map(Peer::from).collect();
    members.sort_by_key(|peer| peer.node_id != own);
    members.iter().map(Member::from).collect()
}

async fn hold_collection(core: &Core, holder: &str, until_ms: u64) -> Result<(), AdminError> {
    let command = Command::HoldCollection { holder: holder.to_owned(), until_ms };
    match core.consensus.propose(command).await {
        Ok(Outcome::Done) => Ok(()),
        // Then the cluster does not collect either: that needs the same level.
        Err(ProposeError::FeatureLevel { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(other) => {
            Err(AdminError::internal(format!("cannot keep blobs from being collected: {other}")))
        }
    }
}

/// Best effort: a hold ends by itself.
async fn release(core: &Core, holder: &str) {
    if let Err(error) = hold_collection(core, holder, 0).await {
        tracing::warn!(backup = holder, error = error.message(), "a hold was not let go of");
    }
}

fn until_ms(now_ms: u64) -> u64 {
    now_ms.saturating_add(HOLD_SECONDS * 1_000)
}

fn unknown(id: &str) -> AdminError {
    AdminError::not_found(format!("no backup {id} is being taken of this replica"))
        .hint("the replica was started again, or nobody asked for ten minutes: begin once more, what was fetched is kept")
}
