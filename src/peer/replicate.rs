//! Copies of an upload on the other holders, made while it arrives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tercet_raft::NodeId;
use tercet_storage::{Algorithm, BlobStore, Digest, RepositoryName};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::call::SHORT_ANSWER;
use super::claim::Claim;
use super::client::{Client, finish_patience};
use super::directory::Peer;
use super::error::PeerError;
use super::link::{Command, Link};
use super::placement::{is_candidate, placement_key, preference};
use crate::core::Core;
use crate::ops::Metrics;
use crate::ops::disk::DiskLevel;
use crate::worker::Workers;

/// Chunks that wait for one holder.
const QUEUE_CHUNKS: usize = 8;
/// Bytes that wait for one holder. Chunks may be large, so their number alone bounds no memory.
const QUEUE_BYTES: usize = 256 * 1024;
/// `507 Insufficient Storage`.
const NO_SPACE_STATUS: u16 = 507;
/// Of the time an upload has taken, the part that one holder may have cost it before it counts as
/// too slow: a quarter.
const LAG_DIVISOR: u32 = 4;

/// What [`SessionReplicas::open`] needs.
#[derive(Debug)]
pub struct SessionReplicasOptions {
    /// Speaks to the holders.
    pub peers: Client,
    /// Where the links run.
    pub workers: Workers,
    /// Where dropped holders are counted.
    pub metrics: Arc<Metrics>,
    /// The session, and the right to write to it.
    pub claim: Claim,
    /// Repository the upload goes to.
    pub repository: RepositoryName,
    /// The running hash.
    pub algorithm: Algorithm,
    /// Bytes that the session has so far; 0 for a new one.
    pub offset: u64,
    /// The other replicas that should hold it: placement of the session id without this replica.
    pub holders: Vec<Peer>,
}

/// The owner's links to the other holders of one session.
///
/// Nothing here fails: a holder that is lost or slow is dropped, and what `finish` returns decides.
#[derive(Debug)]
pub struct SessionReplicas {
    links: Vec<Holder>,
    /// How many there were at the beginning.
    holders: usize,
    /// Set by a link whose holder has seen a greater right to the session.
    taken_over: Arc<AtomicBool>,
    /// Holders that make a majority with the owner.
    majority: usize,
    stall: Duration,
    opened: Instant,
    /// A `send` has begun and not ended: if it was dropped half-way, some holder may lack its bytes.
    sending: bool,
    metrics: Arc<Metrics>,
}

/// This end of one link.
#[derive(Debug)]
struct Holder {
    peer: Peer,
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    /// Time that it alone has cost the upload.
    lag: Duration,
}

impl SessionReplicas {
    /// Opens the session on the holders. Returns at once; a holder that does not take it is dropped
    /// when that is known.
    pub async fn open(options: SessionReplicasOptions) -> Self {
        let stall = options.peers.stall();
        let majority = options.holders.len().div_ceil(2);
        let taken_over = Arc::new(AtomicBool::new(false));
        let links = options.holders.iter().map(|peer| {
            let (commands, received) = mpsc::channel(QUEUE_CHUNKS);
            let link = Link {
                client: options.peers.clone(),
                peer: peer.clone(),
                claim: options.claim,
                repository: options.repository.clone(),
                algorithm: options.algorithm,
                offset: options.offset,
                taken_over: Arc::clone(&taken_over),
            };
            options.workers.spawn("session-link", move |token| async move {
                // A cancelled link leaves the holder with what it has; its reaper cleans up.
                let _ = token.run_until_cancelled(link.run(received)).await;
            });
            let room = Arc::new(Semaphore::new(QUEUE_BYTES));
            Holder { peer: peer.clone(), commands, room, lag: Duration::ZERO }
        });
        Self {
            links: links.collect(),
            holders: options.holders.len(),
            taken_over,
            majority,
            stall,
            opened: Instant::now(),
            sending: false,
            metrics: options.metrics,
        }
    }

    /// The holders that are still linked.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        self.links.iter().filter(|link| !link.commands.is_closed()).map(|link| &link.peer)
    }

    /// Whether a holder has said that another replica has taken the session over.
    pub fn taken_over(&self) -> bool {
        self.taken_over.load(Ordering::Acquire)
    }

    /// Whether every holder is still linked, so that nobody can have taken the session over unnoticed.
    pub fn is_whole(&self) -> bool {
        self.live().count() == self.holders
    }

    /// Queues the next bytes for every holder. Waits while queues are full, at most `holder_stall`;
    /// who is still full then is dropped.
    pub async fn send(&mut self, chunk: Bytes) {
        if std::mem::replace(&mut self.sending, true) {
            let faults = self.links.iter().map(|_| Some("a write to it was interrupted"));
            self.keep_only(faults.collect());
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(QUEUE_BYTES));
            self.send_piece(piece).await;
        }
        self.sending = false;
    }

    /// Ends a PATCH: waits until every holder has said that it has all bytes, at most
    /// `holder_stall` for their queues and as much for their answers.
    pub async fn end_patch(&mut self) {
        let stall = self.stall;
        let asked = self.links.iter().map(|link| async move {
            let (done, answer) = oneshot::channel();
            link.command(Command::EndPatch(done), stall).await?;
            match tokio::time::timeout(stall * 2, answer).await {
                Ok(Ok(())) => Ok(()),
                // Why is in the link's own log line.
                Ok(Err(_)) => Err("the link failed"),
                Err(_) => Err("the end of a PATCH was not confirmed in time"),
            }
        });
        let answers = join_all(asked).await;
        self.keep_only(answers.into_iter().map(|answer| answer.err()).collect());
    }

    /// Has every holder verify `digest`, fsync and publish. Returns the ids of those that did, as
    /// soon as they are `needed`, or all have answered, or the deadline for this size has passed.
    /// The others go on in the background.
    pub async fn finish(&self, digest: &Digest, size: u64, needed: usize) -> Vec<NodeId> {
        let (stall, patience) = (self.stall, finish_patience(size) + self.stall * 2);
        let mut answers: FuturesUnordered<_> = self
            .links
            .iter()
            .map(|link| async move {
                let (done, answer) = oneshot::channel();
                let command = Command::Finish { digest: digest.clone(), size, done };
                link.command(command, stall).await.ok()?;
                let answered = tokio::time::timeout(patience, answer).await.ok()?;
                answered.ok().map(|()| link.peer.node_id)
            })
            .collect();
        let mut holders = Vec::new();
        while holders.len() < needed
            && let Some(answer) = answers.next().await
        {
            holders.extend(answer);
        }
        holders
    }

    /// Removes the session from every holder that can still be reached.
    pub async fn abort(self) {
        let stall = self.stall;
        join_all(self.links.iter().map(|link| link.command(Command::Abort, stall))).await;
    }

    async fn send_piece(&mut self, piece: Bytes) {
        let stall = self.stall;
        let offers = self.links.iter().map(|link| {
            let piece = piece.clone();
            async move {
                let began = Instant::now();
                tokio::time::timeout(stall, link.offer(piece))
                    .await
                    .unwrap_or(Err("its queue stayed full"))
                    .map(|()| began.elapsed())
            }
        });
        let waited = join_all(offers).await;
        let fastest = waited.iter().flatten().min().copied().unwrap_or_default();
        for (link, waited) in self.links.iter_mut().zip(&waited) {
            if let Ok(waited) = waited {
                link.lag += waited.saturating_sub(fastest);
            }
        }
        self.keep_only(waited.into_iter().map(|waited| waited.err()).collect());
        self.drop_laggard();
    }

    /// Drops the holders that have a fault.
    fn keep_only(&mut self, faults: Vec<Option<&'static str>>) {
        let mut faults = faults.into_iter();
        let metrics = &self.metrics;
        self.links.retain(|link| match faults.next().flatten() {
            None => true,
            Some(reason) => {
                dropped(metrics, &link.peer, reason);
                false
            }
        });
    }

    /// A holder that never quite stalls can still slow every push down. It is dropped as long as
    /// enough others keep up.
    fn drop_laggard(&mut self) {
        if self.links.len() <= self.majority {
            return;
        }
        let allowed = self.stall + self.opened.elapsed() / LAG_DIVISOR;
        let slowest = self.links.iter().enumerate().max_by_key(|(_, link)| link.lag);
        if let Some((index, link)) = slowest
            && link.lag > allowed
        {
            dropped(&self.metrics, &link.peer, "it is slower than the others");
            self.links.swap_remove(index);
        }
    }
}

impl Holder {
    async fn offer(&self, piece: Bytes) -> Result<(), &'static str> {
        let bytes = u32::try_from(piece.len()).map_err(|_| "a piece is too large")?;
        let acquire = Arc::clone(&self.room).acquire_many_owned(bytes);
        // A link that failed gives no room any more: wait for either.
        let room = tokio::select! {
            room = acquire => room.map_err(|_| "the link failed")?,
            () = self.commands.closed() => return Err("the link failed"),
        };
        self.commands.send(Command::Chunk(piece, room)).await.map_err(|_| "the link failed")
    }

    async fn command(&self, command: Command, deadline: Duration) -> Result<(), &'static str> {
        match tokio::time::timeout(deadline, self.commands.send(command)).await {
            Ok(sent) => sent.map_err(|_| "the link failed"),
            Err(_) => Err("its queue stayed full"),
        }
    }
}

fn dropped(metrics: &Metrics, peer: &Peer, reason: &str) {
    metrics.holder_dropped.inc();
    tracing::warn!(peer = %peer.name, reason, "a push goes on without this holder");
}

/// Pushes a blob that this replica has published to further members, those that should hold it
/// first, until `needed` replicas have it durably. `have` are those that do already, this replica
/// included.
pub async fn ensure_copies(
    core: &Core,
    digest: &Digest,
    size: u64,
    have: BTreeSet<NodeId>,
    needed: usize,
) -> Copies {
    let members: Vec<Peer> = core.consensus.members().iter().map(Peer::from).collect();
    let mut candidates = preference(&members, &placement_key(digest));
    // An edge keeps what it likes and one that leaves takes its copy along: these promise nothing.
    let own = core.consensus.identity().node_id;
    candidates
        .retain(|peer| is_candidate(peer) && peer.node_id != own && !have.contains(&peer.node_id));
    let missing = needed.saturating_sub(have.len());
    let made = push_to(&core.peers, &core.blobs, candidates, digest, size, missing).await;
    Copies { durable: have.len() + made.durable, ..made }
}

/// What became of an attempt to have enough copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// Replicas that have the blob durably.
    pub durable: usize,
    /// Replicas that would have taken it, had they space.
    pub without_room: usize,
}

/// Pushes to `candidates`, in their order, until `need` of them have the blob durably. Returns how
/// many have.
async fn push_to(
    client: &Client,
    blobs: &BlobStore,
    candidates: Vec<Peer>,
    digest: &Digest,
    size: u64,
    need: usize,
) -> Copies {
    let mut candidates = candidates.into_iter();
    let mut pushes = FuturesUnordered::new();
    let (mut copies, mut without_room) = (0, 0);
    while copies < need {
        // No more at a time than are needed: each reads the whole blob.
        while pushes.len() + copies < need {
            let Some(peer) = candidates.next() else { break };
            pushes.push(async move {
                let result = push(client, blobs, &peer, digest, size).await;
                (peer, result)
            });
        }
        match pushes.next().await {
            Some((_, Ok(()))) => copies += 1,
            Some((peer, Err(NotCopied { reason, room }))) => {
                tracing::warn!(peer = %peer.name, %digest, reason, "cannot copy a blob");
                without_room += usize::from(room == PeerRoom::None);
            }
            None => break,
        }
    }
    Copies { durable: copies, without_room }
}

/// Why a peer did not get a blob.
struct NotCopied {
    reason: String,
    room: PeerRoom,
}

/// Whether a peer's disk was the reason.
#[derive(PartialEq, Eq)]
enum PeerRoom {
    None,
    NotTheReason,
}

async fn push(
    client: &Client,
    blobs: &BlobStore,
    peer: &Peer,
    digest: &Digest,
    size: u64,
) -> Result<(), NotCopied> {
    let here = |reason: String| NotCopied { reason, room: PeerRoom::NotTheReason };
    // That the peer has a file of this name and size would not say that the file is right, or that its
    // name is durable yet: only bytes that it has just verified and fsynced count.
    let reader = match blobs.reader(digest, None).await {
        Ok(Some(reader)) => reader,
        Ok(None) => return Err(here("it is not on this replica".to_owned())),
        Err(error) => return Err(here(error.to_string())),
    };
    match client.push_blob(peer, digest, size, reader.into_stream()).await {
        Ok(()) => Ok(()),
        Err(error) => {
            let room = room_of(client, peer, &error).await;
            Err(NotCopied { reason: error.to_string(), room })
        }
    }
}

/// A peer that refuses before it has read the body may have its answer lost with the connection, so it is
/// asked what it says of its disk.
async fn room_of(client: &Client, peer: &Peer, error: &PeerError) -> PeerRoom {
    if error.status() == Some(NO_SPACE_STATUS) {
        return PeerRoom::None;
    }
    match client.status(peer, SHORT_ANSWER).await {
        Ok(status) if DiskLevel::named(&status.disk_level) >= DiskLevel::UploadsRefused => {
            PeerRoom::None
        }
        _ => PeerRoom::NotTheReason,
    }
}
