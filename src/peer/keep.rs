//! Brings one blob to this replica's disk.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tercet_storage::{BlobWriter, Digest, StorageError};
use tokio::sync::mpsc;

use super::directory::Peer;
use super::fetch::{FetchError, Fetcher};
use super::repair::Budget;
use crate::pieces::Pieces;

/// How long the next chunk of a client's stream may take before this goes on by itself: a slow
/// client is no reason to keep a blob away from the disk.
const TEE_STALL: Duration = Duration::from_secs(3);
/// The slowest fetch that is let go on, in bytes per second over all of it.
const RATE_MIN: u64 = 256 * 1024;
/// Fetches that share one budget, at most as many as are made at a time.
const SHARERS_MAX: u64 = 16;
/// Time that every fetch has, whatever its size.
const BASE: Duration = Duration::from_secs(60);

/// Fetches, verifies and publishes. Begins with what a client's stream passes on, if there is one. With a
/// budget nobody waits for it: it comes as slowly as that wants, and only from peers that answer.
pub(super) async fn keep(
    fetcher: &Fetcher,
    digest: &Digest,
    size: u64,
    tee: Option<mpsc::Receiver<Bytes>>,
    budget: Option<&Budget>,
) -> Result<(), FetchError> {
    let room = match &fetcher.parts.edge_cache {
        None => None,
        Some(cache) => match cache.admit(digest, size).await {
            Some(room) => Some(room),
            // It goes to the client only.
            None => return Ok(()),
        },
    };
    let waiting = budget.map_or(Duration::ZERO, |budget| budget.time_for(size, SHARERS_MAX));
    let deadline = BASE + Duration::from_secs(size / RATE_MIN) + waiting;
    match tokio::time::timeout(deadline, attempts(fetcher, digest, size, tee, budget)).await {
        Ok(Ok(())) => {
            if let Some(room) = room {
                room.kept();
            }
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(FetchError::Unavailable {
            digest: digest.clone(),
            reason: format!("not complete after {deadline:?}"),
        }),
    }
}

async fn attempts(
    fetcher: &Fetcher,
    digest: &Digest,
    size: u64,
    tee: Option<mpsc::Receiver<Bytes>>,
    budget: Option<&Budget>,
) -> Result<(), FetchError> {
    let mut sources = fetcher.sources(digest);
    let mut left_out = Vec::new();
    if budget.is_some() {
        let client = &fetcher.parts.peers;
        (left_out, sources) = sources.into_iter().partition(|peer| client.is_suspect(peer));
    }
    let mut outcome = attempt(fetcher, digest, size, tee, budget, sources.clone()).await;
    if let (Err(FetchError::Nowhere { .. }), Some(peer)) = (&outcome, left_out.first()) {
        let reason = format!("{} did not answer a moment ago", peer.name);
        return Err(FetchError::Unavailable { digest: digest.clone(), reason });
    }
    // Several may have contributed to the wrong bytes: each is tried alone.
    for peer in sources {
        match outcome {
            Err(FetchError::Storage(StorageError::DigestMismatch { .. })) => {
                tracing::error!(%digest, next = %peer.name, "wrong bytes from a peer, trying another");
                outcome = match attempt(fetcher, digest, size, None, budget, vec![peer]).await {
                    // This one is no help, which does not make the bytes of the others right.
                    Err(FetchError::Nowhere { .. } | FetchError::Unavailable { .. }) => outcome,
                    other => other,
                };
            }
            other => return other,
        }
    }
    outcome
}

async fn attempt(
    fetcher: &Fetcher,
    digest: &Digest,
    size: u64,
    tee: Option<mpsc::Receiver<Bytes>>,
    budget: Option<&Budget>,
    peers: Vec<Peer>,
) -> Result<(), FetchError> {
    let mut writer = fetcher.parts.blobs.writer(digest.clone(), Some(size)).await?;
    if let Some(tee) = tee {
        read_tee(tee, &mut writer).await?;
    }
    let relay = fetcher.relay(digest, size, writer.written()..size, peers);
    let relayed = pin!(stream::try_unfold(relay, |mut relay| async move {
        Ok::<_, FetchError>(relay.next().await?.map(|chunk| (chunk, relay)))
    }));
    let mut pieces = Pieces::of(relayed);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if let Some(budget) = budget {
            // Not reading on is what slows the peer down.
            budget.take(piece.len() as u64).await;
            fetcher.parts.metrics.repair_bytes.inc_by(piece.len() as u64);
        }
        writer.append(piece).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Takes chunks until the stream ends, its client goes away, or it is too slow.
async fn read_tee(
    mut tee: mpsc::Receiver<Bytes>,
    writer: &mut BlobWriter,
) -> Result<(), StorageError> {
    while let Ok(Some(chunk)) = tokio::time::timeout(TEE_STALL, tee.recv()).await {
        writer.append(chunk).await?;
    }
    Ok(())
}
