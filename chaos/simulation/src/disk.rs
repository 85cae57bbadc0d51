//! What a simulated machine has on its disk: the Raft log and the blobs. Both remember what was synced; the rest
//! may be gone after a power loss.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use tercet_storage::Digest;

/// The contents of the Raft log.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogImage {
    pub(crate) entries: BTreeMap<u64, Vec<u8>>,
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) committed: Option<Vec<u8>>,
    pub(crate) purged: Option<Vec<u8>>,
}

/// One write to the log.
#[derive(Debug, Clone)]
pub(crate) enum LogWrite {
    Append(Vec<(u64, Vec<u8>)>),
    Vote(Vec<u8>),
    Committed(Option<Vec<u8>>),
    /// From this index on.
    Truncate(u64),
    /// Up to this index, at this position.
    Purge(u64, Vec<u8>),
}

impl fmt::Display for LogWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(entries) => {
                let first = entries.first().map_or(0, |(index, _)| *index);
                write!(f, "{} entries from {first}", entries.len())
            }
            Self::Vote(_) => f.write_str("a vote"),
            Self::Committed(_) => f.write_str("what is committed"),
            Self::Truncate(first) => write!(f, "that it ends before {first}"),
            Self::Purge(last, _) => write!(f, "that it begins after {last}"),
        }
    }
}

impl LogImage {
    fn take_in(&mut self, write: &LogWrite) {
        match write {
            LogWrite::Append(entries) => self.entries.extend(entries.iter().cloned()),
            LogWrite::Vote(vote) => self.vote = Some(vote.clone()),
            LogWrite::Committed(committed) => self.committed.clone_from(committed),
            LogWrite::Truncate(first) => {
                self.entries.split_off(first);
            }
            LogWrite::Purge(last, position) => {
                self.entries = self.entries.split_off(&last.saturating_add(1));
                self.purged = Some(position.clone());
            }
        }
    }
}

/// A log with what is synced of it.
#[derive(Debug, Default)]
pub(crate) struct LogDisk {
    pub(crate) live: LogImage,
    durable: LogImage,
    unsynced: VecDeque<LogWrite>,
    /// Number of the last write, and of the last one that is synced.
    written: u64,
}

impl LogDisk {
    pub(crate) fn write(&mut self, write: LogWrite) {
        self.live.take_in(&write);
        self.unsynced.push_back(write);
        self.written += 1;
    }

    /// A write that is never synced.
    pub(crate) fn pretend(&mut self, write: &LogWrite) {
        self.live.take_in(write);
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Everything up to that write is on the disk.
    pub(crate) fn sync(&mut self, up_to: u64) {
        let synced = self.written - self.unsynced.len() as u64;
        for _ in synced..up_to {
            let Some(write) = self.unsynced.pop_front() else { break };
            self.durable.take_in(&write);
        }
    }

    /// `kept` is told how many writes were not synced, and answers how many of them, the oldest first, reached the
    /// disk all the same.
    pub(crate) fn lose_power(&mut self, kept: impl FnOnce(usize) -> usize) {
        let kept = kept(self.unsynced.len());
        for write in std::mem::take(&mut self.unsynced).into_iter().take(kept) {
            self.durable.take_in(&write);
        }
        self.live = self.durable.clone();
    }
}

/// One blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredBlob {
    pub(crate) durable: bool,
    /// When it was published, or published again, since the simulation began.
    pub(crate) published: Duration,
}

/// The blobs of a machine. What a blob's bytes are follows from its digest.
#[derive(Debug, Default)]
pub(crate) struct BlobDisk {
    pub(crate) blobs: BTreeMap<Digest, StoredBlob>,
}

impl BlobDisk {
    pub(crate) fn write(&mut self, digest: &Digest, now: Duration) {
        let blob = StoredBlob { durable: false, published: now };
        let blob = self.blobs.entry(digest.clone()).or_insert(blob);
        blob.published = now;
    }

    pub(crate) fn sync(&mut self, digest: &Digest) {
        if let Some(blob) = self.blobs.get_mut(digest) {
            blob.durable = true;
        }
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.blobs.get(digest).is_some_and(|blob| blob.durable)
    }

    pub(crate) fn lose_power(&mut self) {
        self.blobs.retain(|_, blob| blob.durable);
    }
}
