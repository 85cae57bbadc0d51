//! Brings one blob to this replica's disk.

use std::time::Duration;

use bytes::Bytes;
use tercet_storage::{BlobWriter, Digest, StorageError};
use tokio::sync::mpsc;

use super::directory::Peer;
use super::fetch::{FetchError, Fetcher};

/// How long the next chunk of a client's stream may take before this goes on by itself: a slow
/// client is no reason to keep a blob away from the disk.
const TEE_STALL: Duration = Duration::from_secs(3);
/// The slowest fetch that is let go on, in bytes per second over all of it.
const RATE_MIN: u64 = 256 * 1024;
/// Time that every fetch has, whatever its size.
const BASE: Duration = Duration::from_secs(60);

/// Fetches, verifies and publishes. Begins with what a client's stream passes on, if there is one.
pub(super) async fn keep(
    fetcher: &Fetcher,
    digest: &Digest,
    size: u64,
    tee: Option<mpsc::Receiver<Bytes>>,
) -> Result<(), FetchError> {
    let deadline = BASE + Duration::from_secs(size / RATE_MIN);
    match tokio::time::timeout(deadline, attempts(fetcher, digest, size, tee)).await {
        Ok(result) => result,
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
) -> Result<(), FetchError> {
    let sources = fetcher.sources(digest);
    let mut outcome = attempt(fetcher, digest, size, tee, sources.clone()).await;
    // Several may have contributed to the wrong bytes: each is tried alone.
    for peer in sources {
        match outcome {
            Err(FetchError::Storage(StorageError::DigestMismatch { .. })) => {
                tracing::error!(%digest, next = %peer.name, "wrong bytes from a peer, trying another");
                outcome = match attempt(fetcher, digest, size, None, vec![peer]).await {
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
    peers: Vec<Peer>,
) -> Result<(), FetchError> {
    let mut writer = fetcher.parts.blobs.writer(digest.clone(), Some(size)).await?;
    if let Some(tee) = tee {
        read_tee(tee, &mut writer).await?;
    }
    let mut relay = fetcher.relay(digest, size, writer.written()..size, peers);
    while let Some(chunk) = relay.next().await? {
        writer.append(chunk).await?;
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
