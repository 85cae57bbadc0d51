//! Brings blobs from the replicas.

use std::fs;
use std::time::Duration;

use futures_util::StreamExt;
use tercet_storage::Digest;

use super::directory::BackupDir;
use super::error::BackupError;
use super::progress::Progress;
use super::verified::Incoming;
use crate::peer::{self, Peer};

/// How often all replicas are asked before a blob counts as missing: one may be busy or just starting.
const ROUNDS: usize = 3;
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// Where blobs come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// Speaks to peer listeners.
    pub(crate) client: peer::Client,
    /// Those to ask, the likeliest first.
    pub(crate) peers: Vec<Peer>,
}

impl Sources {
    /// Fetches a blob into the directory, verified and durable. A replica that fails is followed by the
    /// next from the same byte on; so is an earlier run.
    pub(crate) async fn fetch(
        &self,
        directory: &BackupDir,
        digest: &Digest,
        size: u64,
        progress: &Progress,
    ) -> Result<(), BackupError> {
        let mut reason = "there is no replica to ask".to_owned();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            for peer in self.client.likeliest_first(self.peers.clone()) {
                match self.fetch_from(&peer, directory, digest, size, progress).await {
                    Ok(()) => return Ok(()),
                    Err(Attempt::Source(why)) => reason = why,
                    Err(Attempt::Here(error)) => return Err(error),
                }
            }
        }
        Err(BackupError::NoSource { digest: digest.clone(), reason })
    }

    async fn fetch_from(
        &self,
        peer: &Peer,
        directory: &BackupDir,
        digest: &Digest,
        size: u64,
        progress: &Progress,
    ) -> Result<(), Attempt> {
        let path = directory.partial(digest);
        let mut incoming = Incoming::resume(&path, digest.algorithm())?;
        if incoming.written() > size {
            drop(incoming);
            fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
            incoming = Incoming::create(&path, digest.algorithm())?;
        }
        let start = incoming.written();
        if start < size {
            let range = (start > 0).then_some(start..size);
            let opened = self.client.fetch_blob(peer, digest, size, range).await;
            let Some(mut blob) = opened.map_err(|error| Attempt::Source(error.to_string()))? else {
                return Err(Attempt::Source(format!("{} lacks it", peer.name)));
            };
            while let Some(chunk) = blob.stream.next().await {
                let chunk = chunk.map_err(|error| Attempt::Source(error.to_string()))?;
                incoming.write(&chunk)?;
                progress.advance(chunk.len() as u64);
            }
        }
        match incoming.publish(digest, size, &directory.blob(digest)) {
            // Wrong bytes, from here or from an earlier run: all of it anew.
            Err(error @ BackupError::Damaged { .. }) => Err(Attempt::Source(error.to_string())),
            published => Ok(published?),
        }
    }
}

/// Whose fault a failed attempt is.
enum Attempt {
    /// Another replica may do better.
    Source(String),
    /// This disk: nobody can do better.
    Here(BackupError),
}

impl From<BackupError> for Attempt {
    fn from(error: BackupError) -> Self {
        Self::Here(error)
    }
}
