//! A snapshot on its way: the files of a checkpoint behind a head that names them.
//!
//! `u32 length | head | file bytes | file bytes …`. The head carries the vote, what the snapshot
//! contains, and each file's name, size and SHA-256; the receiver trusts none of it until it agrees.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tercet_storage::codec::{CodecError, Envelope, encode};
use tercet_storage::{Algorithm, Digest, DigestHasher, sync_dir, sync_file};
use tokio::sync::mpsc;

use super::wire::SNAPSHOT_HEAD;
use crate::blocking::blocking;
use crate::machine::{SnapshotDir, fresh_snapshot_dir};
use crate::records::{
    KindRecord, ReplicaRecord, SnapshotMetaRecord, VoteRecord, is_plain, to_io, without_kinds,
};
use crate::type_config::alias::{Snapshot, SnapshotMeta, Vote};

/// Bytes read, sent and written at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// The head is a list of files; a checkpoint of a billion records has some thousand.
const HEAD_BYTES_MAX: u32 = 4 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Head<R> {
    vote: VoteRecord,
    meta: SnapshotMetaRecord<R>,
    files: Vec<FileHead>,
}

#[derive(Serialize, Deserialize)]
struct FileHead {
    name: String,
    size: u64,
    digest: Digest,
}

/// The byte stream of a snapshot. The directory stays until the stream is dropped.
pub(super) async fn send_stream(
    vote: Vote,
    snapshot: Snapshot,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let dir = snapshot.snapshot.clone();
    let files = blocking(move || list_files(dir.path())).await??;
    let paths: Vec<(PathBuf, u64)> =
        files.iter().map(|file| (snapshot.snapshot.path().join(&file.name), file.size)).collect();
    let head = encode_head(&vote, &snapshot.meta, files).map_err(to_io)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    let (chunks, stream) = mpsc::channel::<io::Result<Bytes>>(CHUNKS_AHEAD);
    // Ends with the stream: once the receiver is gone, the next send fails.
    tokio::spawn(async move {
        let send = async {
            let mut prefix = BytesMut::with_capacity(4 + head.len());
            prefix.extend_from_slice(&length.to_be_bytes());
            prefix.extend_from_slice(&head);
            send_chunk(&chunks, prefix.freeze()).await?;
            for (path, size) in &paths {
                send_file(&chunks, path, *size).await?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = send.await {
            let _ = chunks.send(Err(error)).await;
        }
        drop(snapshot);
    });
    Ok(futures_util::stream::unfold(stream, |mut stream| async move {
        stream.recv().await.map(|chunk| (chunk, stream))
    })
    .boxed())
}

/// Receives a snapshot into a fresh directory below `snapshots`; nothing is left behind on error.
pub(crate) async fn receive_snapshot(
    snapshots: &Path,
    body: BoxStream<'static, io::Result<Bytes>>,
) -> io::Result<(Vote, SnapshotMeta, SnapshotDir)> {
    let mut body = Input { body, rest: Bytes::new() };
    let length = body.exact(4).await?.get_u32();
    if length > HEAD_BYTES_MAX {
        return Err(invalid(format!("snapshot head of {length} bytes")));
    }
    let head = body.exact(length as usize).await?;
    let (vote, meta, files) = decode_head(&head)?;
    let dir = SnapshotDir::new(fresh_snapshot_dir(snapshots, "incoming"));
    let made = dir.clone();
    blocking(move || std::fs::create_dir_all(made.path())).await??;
    for file in &files {
        receive_file(&mut body, dir.path(), file).await?;
    }
    let whole = dir.clone();
    blocking(move || sync_dir(whole.path())).await?.map_err(to_io)?;
    Ok((vote, meta, dir))
}

/// In the version that the receiver must know: the first, unless the membership has kinds or zones.
fn encode_head(
    vote: &Vote,
    meta: &SnapshotMeta,
    files: Vec<FileHead>,
) -> Result<Vec<u8>, CodecError> {
    let vote = VoteRecord::from(vote);
    if is_plain(meta.last_membership.membership()) {
        let head = Head::<ReplicaRecord> { vote, meta: meta.into(), files };
        encode(without_kinds(SNAPSHOT_HEAD), &head)
    } else {
        encode(SNAPSHOT_HEAD, &Head::<KindRecord> { vote, meta: meta.into(), files })
    }
}

fn decode_head(bytes: &[u8]) -> io::Result<(Vote, SnapshotMeta, Vec<FileHead>)> {
    let envelope = Envelope::open(SNAPSHOT_HEAD, bytes).map_err(to_io)?;
    if envelope.version < SNAPSHOT_HEAD.version {
        let head: Head<ReplicaRecord> = envelope.decode().map_err(to_io)?;
        return Ok((head.vote.into(), head.meta.try_into()?, head.files));
    }
    let head: Head<KindRecord> = envelope.decode().map_err(to_io)?;
    Ok((head.vote.into(), head.meta.try_into()?, head.files))
}

async fn receive_file(body: &mut Input, dir: &Path, head: &FileHead) -> io::Result<()> {
    // RocksDB's checkpoint is flat. A name with a separator is not from a checkpoint.
    let flat = Path::new(&head.name).file_name().is_some_and(|name| name == head.name.as_str());
    if !flat {
        return Err(invalid(format!("snapshot file name `{}`", head.name)));
    }
    let path = dir.join(&head.name);
    let open = {
        let path = path.clone();
        move || std::fs::File::options().write(true).create_new(true).open(path)
    };
    let mut file = blocking(open).await??;
    let mut hasher = DigestHasher::new(head.digest.algorithm());
    let mut left = head.size;
    while left > 0 {
        let chunk = body.up_to(left.min(CHUNK_BYTES as u64) as usize).await?;
        left -= chunk.len() as u64;
        hasher.update(&chunk);
        file = blocking(move || file.write_all(&chunk).map(|()| file)).await??;
    }
    let actual = hasher.finish();
    if actual != head.digest {
        return Err(invalid(format!("snapshot file `{}` arrived damaged", head.name)));
    }
    blocking(move || sync_file(&file, &path)).await
}

fn list_files(dir: &Path) -> io::Result<Vec<FileHead>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| invalid(format!("checkpoint file name {}", name.display())))?;
        // LOCK is empty and made anew by whoever opens the checkpoint; LOG* is RocksDB's diary.
        if !entry.file_type()?.is_file() || name == "LOCK" || name.starts_with("LOG") {
            continue;
        }
        let (size, digest) = hash_file(&entry.path())?;
        files.push(FileHead { name, size, digest });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn hash_file(path: &Path) -> io::Result<(u64, Digest)> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = DigestHasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size += read as u64;
    }
    Ok((size, hasher.finish()))
}

async fn send_file(
    chunks: &mpsc::Sender<io::Result<Bytes>>,
    path: &Path,
    size: u64,
) -> io::Result<()> {
    let open = {
        let path = path.to_owned();
        move || std::fs::File::open(path)
    };
    let mut file = blocking(open).await??;
    let mut left = size;
    while left > 0 {
        let mut chunk = vec![0; left.min(CHUNK_BYTES as u64) as usize];
        let read = blocking(move || {
            let read = file.read(&mut chunk)?;
            chunk.truncate(read);
            io::Result::Ok((file, chunk))
        });
        let chunk;
        (file, chunk) = read.await??;
        if chunk.is_empty() {
            return Err(invalid(format!("{} became shorter while it was sent", path.display())));
        }
        left -= chunk.len() as u64;
        send_chunk(chunks, Bytes::from(chunk)).await?;
    }
    Ok(())
}

async fn send_chunk(chunks: &mpsc::Sender<io::Result<Bytes>>, chunk: Bytes) -> io::Result<()> {
    chunks.send(Ok(chunk)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::BrokenPipe, "the receiver of the snapshot is gone")
    })
}

/// A stream of chunks, read by length.
struct Input {
    body: BoxStream<'static, io::Result<Bytes>>,
    rest: Bytes,
}

impl Input {
    async fn up_to(&mut self, max: usize) -> io::Result<Bytes> {
        while self.rest.is_empty() {
            self.rest = self.body.next().await.ok_or_else(|| {
                io::Error::new(io::ErrorKind::UnexpectedEof, "the snapshot stream ended early")
            })??;
        }
        Ok(self.rest.split_to(max.min(self.rest.len())))
    }

    async fn exact(&mut self, length: usize) -> io::Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(length);
        while bytes.len() < length {
            let chunk = self.up_to(length - bytes.len()).await?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
