//! Brings a blob that this replica lacks: to the client who asks for it now, and to the disk.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tercet_storage::{BlobStore, Digest, DigestHasher, Rest, StorageError};
use thiserror::Error;
use tokio::sync::mpsc;

use super::client::Client;
use super::directory::{Directory, Peer};
use super::edge_cache::EdgeCache;
use super::keep;
use super::placement::{placement_key, preference};
use super::relay::Relay;
use super::repair::Budget;
use crate::ops::Metrics;
use crate::worker::Workers;

/// Blobs up to this size are verified before their first byte goes out, so a bad copy is not even
/// noticed by the client.
const WHOLE_BYTES_MAX: u64 = 256 * 1024;
/// How long a client waits for the first byte, over all peers. containerd gives up after 30 s.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// Chunks between a client's stream and the disk.
const TEE_CHUNKS: usize = 4;
/// How long a client's stream waits for the disk before it goes on without.
const TEE_PATIENCE: Duration = Duration::from_secs(2);
/// Most blobs that are being brought to the disk at a time, repair's included.
const KEEPING_MAX: usize = 16;

/// A blob's bytes. An error in it means: cut the response, do not complete it.
pub type BlobStream = BoxStream<'static, Result<Bytes, FetchError>>;

/// A blob cannot be brought.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Every other member answered that it lacks the blob.
    #[error("{digest} is on no other replica")]
    Nowhere {
        /// The blob.
        digest: Digest,
    },
    /// The members that may have it do not answer, or broke off.
    #[error("{digest} cannot be read from a peer now: {reason}")]
    Unavailable {
        /// The blob.
        digest: Digest,
        /// The last thing that went wrong.
        reason: String,
    },
    /// What came is not what the digest says.
    #[error("{digest} came as {actual}")]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// This replica's disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What became of a blob that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is on this disk, verified.
    Here,
    /// It is being fetched already, or too many others are: ask again later.
    Later,
}

/// What a [`Fetcher`] is made of.
#[derive(Debug)]
pub struct FetcherParts {
    /// This replica's disk.
    pub blobs: BlobStore,
    /// The way to the peers.
    pub peers: Client,
    /// Who they are.
    pub directory: Directory,
    /// Where fetches go on when their client is gone.
    pub workers: Workers,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// Use of the disk, in percent, from which blobs are passed through but not kept
    /// (`limits.disk_repair_stop_percent`).
    pub disk_stop_percent: u8,
    /// On an edge: what bounds the blobs that are kept.
    pub edge_cache: Option<EdgeCache>,
}

/// Brings blobs from peers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    pub(super) parts: Arc<FetcherParts>,
    /// One fetch to the disk per digest.
    keeping: Arc<Mutex<HashSet<Digest>>>,
}

impl Fetcher {
    /// A fetcher over these parts.
    #[must_use]
    pub fn new(parts: FetcherParts) -> Self {
        Self { parts: Arc::new(parts), keeping: Arc::new(Mutex::new(HashSet::new())) }
    }

    /// Streams a blob of `size` bytes, or `range` of it, from the peers, those that should hold it
    /// first. When one dies mid-way the stream goes on from another.
    ///
    /// A whole blob is verified as it passes; its last chunk is held back until the hash is right.
    /// It is kept on this disk, also when the client goes away. A part is verified by the peer that
    /// sends it, and not kept.
    ///
    /// # Errors
    /// When no peer can send it.
    pub async fn open(
        &self,
        digest: &Digest,
        size: u64,
        range: Option<Range<u64>>,
    ) -> Result<BlobStream, FetchError> {
        let whole = 0..size;
        let range = range.unwrap_or_else(|| whole.clone());
        if range == whole && size <= WHOLE_BYTES_MAX {
            return self.open_small(digest, size).await;
        }
        let mut relay = self.relay(digest, size, range.clone(), self.sources(digest));
        match tokio::time::timeout(CONNECT_DEADLINE, relay.connect()).await {
            Ok(connected) => connected?,
            Err(_) => {
                let reason = format!("no peer has begun to send it within {CONNECT_DEADLINE:?}");
                return Err(FetchError::Unavailable { digest: digest.clone(), reason });
            }
        }
        self.parts.metrics.pulled_through.inc();
        if range != whole {
            return Ok(plain(relay));
        }
        let tee = self.keep_from_tee(digest, size);
        let check = Check {
            relay,
            digest: digest.clone(),
            left: size,
            hasher: DigestHasher::new(digest.algorithm()),
            tee,
        };
        Ok(check.into_stream())
    }

    /// Goes on where a read of the local copy broke off: `rest` of a blob of `size` bytes from the peers.
    /// With a hash over what came before, the whole is verified before the last chunk leaves.
    ///
    /// # Errors
    /// When no peer can send it.
    pub async fn resume(
        &self,
        digest: &Digest,
        size: u64,
        rest: Rest,
    ) -> Result<BlobStream, FetchError> {
        let Rest { range, hasher } = rest;
        let sources = self.sources(digest);
        let mut relay = self.relay(digest, size, range.clone(), sources).elsewhere();
        match tokio::time::timeout(CONNECT_DEADLINE, relay.connect()).await {
            Ok(connected) => connected?,
            Err(_) => {
                let reason = format!("no peer has begun to send it within {CONNECT_DEADLINE:?}");
                return Err(FetchError::Unavailable { digest: digest.clone(), reason });
            }
        }
        let Some(hasher) = hasher else { return Ok(plain(relay)) };
        let left = range.end.saturating_sub(range.start);
        let check = Check { relay, digest: digest.clone(), left, hasher: *hasher, tee: None };
        Ok(check.into_stream())
    }

    /// Brings a blob to this disk and returns when it is there.
    ///
    /// # Errors
    /// When no peer can send it, or the disk refuses it.
    pub async fn keep(&self, digest: &Digest, size: u64) -> Result<Kept, FetchError> {
        let Some(_turn) = self.turn(digest) else { return Ok(Kept::Later) };
        keep::keep(self, digest, size, None, None).await?;
        Ok(Kept::Here)
    }

    /// As [`Fetcher::keep`], no faster than `budget` lets it, and without asking peers that did not
    /// answer a moment ago: nobody waits for it.
    ///
    /// # Errors
    /// When no peer can send it now, or the disk refuses it.
    pub async fn keep_within(
        &self,
        digest: &Digest,
        size: u64,
        budget: &Budget,
    ) -> Result<Kept, FetchError> {
        let Some(_turn) = self.turn(digest) else { return Ok(Kept::Later) };
        keep::keep(self, digest, size, None, Some(budget)).await?;
        Ok(Kept::Here)
    }

    /// A blob of this disk is being read by a client.
    pub fn used(&self, digest: &Digest) {
        if let Some(cache) = &self.parts.edge_cache {
            cache.used(digest);
        }
    }

    /// A relay over the given peers.
    pub(super) fn relay(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
        peers: Vec<Peer>,
    ) -> Relay {
        let FetcherParts { peers: client, blobs, .. } = &*self.parts;
        Relay::new(client.clone(), blobs.clone(), digest.clone(), size, range, peers)
    }

    /// The other members in the order in which they are likely to have the blob and to answer: those on
    /// which it is placed, those that may still have it, the edges; who did not answer lately comes last.
    pub(super) fn sources(&self, digest: &Digest) -> Vec<Peer> {
        let mut ordered = preference(&self.parts.directory.members(), &placement_key(digest));
        ordered.retain(|peer| peer.node_id != self.parts.directory.own());
        self.parts.peers.likeliest_first(ordered)
    }

    /// Whether the disk has room for blobs that nobody pushed here.
    pub(super) fn may_keep(&self) -> bool {
        match self.parts.blobs.space() {
            Ok(space) => space.used_percent() < self.parts.disk_stop_percent,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how full the disk is");
                false
            }
        }
    }

    /// A small blob, verified before its first byte; the next peer is asked if it is wrong.
    async fn open_small(&self, digest: &Digest, size: u64) -> Result<BlobStream, FetchError> {
        let mut last = None;
        for peer in self.sources(digest) {
            match self.whole(digest, size, vec![peer]).await {
                Ok(bytes) => {
                    self.parts.metrics.pulled_through.inc();
                    if let Some(tee) = self.keep_from_tee(digest, size) {
                        // An empty queue takes one chunk; if not, the disk fetches it itself.
                        let _ = tee.try_send(bytes.clone());
                    }
                    let one = std::future::ready(Ok(bytes)).into_stream();
                    return Ok(one.boxed());
                }
                // One that cannot be asked says more than one that lacks the blob.
                Err(error) => match (&last, &error) {
                    (Some(_), FetchError::Nowhere { .. }) => {}
                    _ => last = Some(error),
                },
            }
        }
        Err(last.unwrap_or_else(|| FetchError::Nowhere { digest: digest.clone() }))
    }

    async fn whole(
        &self,
        digest: &Digest,
        size: u64,
        peers: Vec<Peer>,
    ) -> Result<Bytes, FetchError> {
        let mut relay = self.relay(digest, size, 0..size, peers);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = relay.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        let actual = Digest::of(digest.algorithm(), &bytes);
        if actual != *digest {
            tracing::error!(%digest, %actual, "a peer sent wrong bytes");
            return Err(FetchError::Corrupt { digest: digest.clone(), actual });
        }
        Ok(bytes.freeze())
    }

    /// Starts bringing the blob to the disk out of what a client's stream passes on. `None` if that
    /// is going on already, or there is no room.
    fn keep_from_tee(&self, digest: &Digest, size: u64) -> Option<mpsc::Sender<Bytes>> {
        if !self.may_keep() {
            return None;
        }
        let turn = self.turn(digest)?;
        let (tee, passed) = mpsc::channel(TEE_CHUNKS);
        let (fetcher, digest) = (self.clone(), digest.clone());
        self.parts.workers.spawn("keep-blob", move |token| async move {
            let _turn = turn;
            let kept = keep::keep(&fetcher, &digest, size, Some(passed), None);
            if let Some(Err(error)) = token.run_until_cancelled(kept).await {
                tracing::warn!(%digest, %error, "a blob that came through was not kept");
            }
        });
        Some(tee)
    }

    fn turn(&self, digest: &Digest) -> Option<Turn> {
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if keeping.len() >= KEEPING_MAX || !keeping.insert(digest.clone()) {
            return None;
        }
        Some(Turn { keeping: Arc::clone(&self.keeping), digest: digest.clone() })
    }
}

/// The right to bring one digest to the disk.
struct Turn {
    keeping: Arc<Mutex<HashSet<Digest>>>,
    digest: Digest,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.keeping.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

/// A part of a blob: its sender has verified the whole.
fn plain(relay: Relay) -> BlobStream {
    stream::try_unfold(relay, |mut relay| async move {
        Ok(relay.next().await?.map(|chunk| (chunk, relay)))
    })
    .boxed()
}

/// A whole blob on its way to a client.
struct Check {
    relay: Relay,
    digest: Digest,
    /// Bytes to come.
    left: u64,
    hasher: DigestHasher,
    tee: Option<mpsc::Sender<Bytes>>,
}

impl Check {
    /// The last chunk leaves only when the hash over all of them is right.
    fn into_stream(self) -> BlobStream {
        stream::try_unfold(Some(self), |check| async move {
            let Some(mut check) = check else { return Ok(None) };
            let Some(chunk) = check.relay.next().await? else { return Ok(None) };
            check.hasher.update(&chunk);
            check.left = check.left.saturating_sub(chunk.len() as u64);
            check.pass_on(&chunk).await;
            if check.left > 0 {
                return Ok(Some((chunk, Some(check))));
            }
            check.verify()?;
            Ok(Some((chunk, None)))
        })
        .boxed()
    }

    /// Gives the disk its share, as long as it keeps up.
    async fn pass_on(&mut self, chunk: &Bytes) {
        let Some(tee) = &self.tee else { return };
        if !matches!(tokio::time::timeout(TEE_PATIENCE, tee.send(chunk.clone())).await, Ok(Ok(())))
        {
            self.tee = None;
        }
    }

    fn verify(self) -> Result<(), FetchError> {
        let actual = self.hasher.finish();
        if actual == self.digest {
            return Ok(());
        }
        tracing::error!(digest = %self.digest, %actual, "peers sent wrong bytes: the response is cut");
        Err(FetchError::Corrupt { digest: self.digest, actual })
    }
}
