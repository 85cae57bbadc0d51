//! Reading the log: for replication, for recovery and for the state machine.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use openraft::RaftLogReader;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode};
use tercet_storage::LogColumn;
use tercet_storage::codec::{Schema, decode};

use super::tail::Tail;
use crate::records::{LOG_ID, LogIdRecord, VOTE, VoteRecord, decode_entry, to_io};
use crate::type_config::TypeConfig;
use crate::type_config::alias::{Entry, LogId, Vote};

/// One replication message carries at most this many bytes of entries (and at least one entry), so
/// that a follower far behind is fed in pieces that fit a deadline.
const REPLICATION_BYTES_MAX: usize = 2 * 1024 * 1024;

pub(crate) const KEY_VOTE: &[u8] = b"vote";
pub(crate) const KEY_COMMITTED: &[u8] = b"committed";
pub(crate) const KEY_PURGED: &[u8] = b"purged";

/// A handle for reading; cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    db: Arc<DB>,
    tail: Arc<Tail>,
}

impl LogReader {
    pub(super) fn new(db: Arc<DB>, tail: Arc<Tail>) -> Self {
        Self { db, tail }
    }

    /// Entries from `start` up to `end` (exclusive), stopping once `bytes_max` is exceeded. A gap is
    /// an error: openraft must never be told that missing entries do not exist.
    fn entries(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if let Some(entries) = self.tail.entries(start, end, bytes_max) {
            return Ok(entries);
        }
        let handle = column(&self.db, LogColumn::Entries)?;
        let mut entries = Vec::new();
        let mut bytes_read = 0;
        let mode = IteratorMode::From(&start.to_be_bytes(), Direction::Forward);
        let mut previous = None;
        for item in self.db.iterator_cf(handle, mode) {
            let (key, value) = item.map_err(io::Error::other)?;
            let index = decode_index(&key)?;
            if index >= end {
                break;
            }
            check_follows(previous, index)?;
            previous = Some(index);
            bytes_read += value.len();
            if !entries.is_empty() && bytes_read > bytes_max {
                break;
            }
            entries.push(decode_entry(&value)?);
        }
        Ok(entries)
    }

    /// Fails if an entry is missing between the purge position and the end of the log.
    pub(super) fn check_contiguous(&self) -> io::Result<()> {
        let purged: Option<LogIdRecord> = self.get_meta(LOG_ID, KEY_PURGED)?;
        let mut previous = purged.map(|id| LogId::from(id).index);
        let handle = column(&self.db, LogColumn::Entries)?;
        let start = previous.map_or(0, |index| index.saturating_add(1));
        let mode = IteratorMode::From(&start.to_be_bytes(), Direction::Forward);
        for item in self.db.iterator_cf(handle, mode) {
            let (key, _) = item.map_err(io::Error::other)?;
            let index = decode_index(&key)?;
            check_follows(previous, index)?;
            previous = Some(index);
        }
        Ok(())
    }

    /// The last entry, if any.
    pub(super) fn last_entry(&self) -> io::Result<Option<Entry>> {
        let handle = column(&self.db, LogColumn::Entries)?;
        match self.db.iterator_cf(handle, IteratorMode::End).next() {
            None => Ok(None),
            Some(item) => {
                let (_, value) = item.map_err(io::Error::other)?;
                decode_entry(&value).map(Some)
            }
        }
    }

    /// The first index still in the log, if any.
    pub(super) fn first_index(&self) -> io::Result<Option<u64>> {
        let purged: Option<LogIdRecord> = self.get_meta(LOG_ID, KEY_PURGED)?;
        // Iteration starts behind the purged range: the tombstones before it are slow to pass.
        let start = purged.map_or(0, |id| LogId::from(id).index);
        let handle = column(&self.db, LogColumn::Entries)?;
        let mode = IteratorMode::From(&start.to_be_bytes(), Direction::Forward);
        match self.db.iterator_cf(handle, mode).next() {
            None => Ok(None),
            Some(item) => {
                item.map_err(io::Error::other).and_then(|(key, _)| decode_index(&key)).map(Some)
            }
        }
    }

    pub(super) fn get_meta<T: serde::de::DeserializeOwned>(
        &self,
        schema: Schema,
        key: &[u8],
    ) -> io::Result<Option<T>> {
        let handle = column(&self.db, LogColumn::Meta)?;
        let value = self.db.get_pinned_cf(handle, key).map_err(io::Error::other)?;
        value.map(|bytes| decode(schema, &bytes).map_err(to_io)).transpose()
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = half_open(&range);
        self.entries(start, end, usize::MAX)
    }

    /// In pages: what is to be applied after a long absence need not fit into memory.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + Send {
        let (start, end) = half_open(&range);
        let reader = self.clone();
        stream::try_unfold((reader, start), move |(reader, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let page = reader.entries(at, end, REPLICATION_BYTES_MAX)?;
            let Some(last) = page.last() else { return io::Result::Ok(None) };
            let next = last.log_id.index.saturating_add(1);
            Ok(Some((stream::iter(page.into_iter().map(Ok)), (reader, next))))
        })
        .try_flatten()
        .boxed()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start, end, REPLICATION_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let record: Option<VoteRecord> = self.get_meta(VOTE, KEY_VOTE)?;
        Ok(record.map(Vote::from))
    }
}

/// A column family of the log. Missing ones are an error, not a panic: the database was opened with all.
pub(crate) fn column(db: &DB, column: LogColumn) -> io::Result<&ColumnFamily> {
    db.cf_handle(column.name()).ok_or_else(|| {
        io::Error::other(format!("the log database has no column family `{}`", column.name()))
    })
}

fn check_follows(previous: Option<u64>, index: u64) -> io::Result<()> {
    match previous {
        Some(previous) if previous.saturating_add(1) != index => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the Raft log has a hole between {previous} and {index}"),
        )),
        _ => Ok(()),
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn decode_index(key: &[u8]) -> io::Result<u64> {
    <[u8; 8]>::try_from(key).map(u64::from_be_bytes).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "a Raft log key is not eight bytes long")
    })
}
