//! Writing the log.
//!
//! All writes of one replica go through RocksDB's single write-ahead log in call order, so a vote can
//! never become durable before an entry that was written earlier, or the other way round.

use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::LogState;
use openraft::storage::{IOFlushed, RaftLogStorage};
use rocksdb::{DB, WriteBatch};
use tercet_storage::codec::encode;
use tercet_storage::{Headroom, LogColumn, StorageError, failpoint, fatal, is_full, open_log_db};
use tokio::sync::oneshot;

use super::flusher::{FlushJob, Flusher};
use super::reader::{KEY_COMMITTED, KEY_PURGED, KEY_VOTE, LogReader, column};
use super::tail::{Tail, Written};
use crate::error::RaftError;
use crate::latency::Latency;
use crate::records::{LOG_ID, LogIdRecord, VOTE, VoteRecord, encode_entry, to_io};
use crate::type_config::TypeConfig;
use crate::type_config::alias::{Entry, LogId, Vote};

/// The log store of one replica. Cheap to clone; the flusher stops with the last clone.
#[derive(Clone)]
pub struct LogStore {
    db: Arc<DB>,
    flusher: Arc<Flusher>,
    reader: LogReader,
    /// What was appended last, for the reader.
    tail: Arc<Tail>,
    /// Set where something watches the volume: a look before each write.
    headroom: Option<Headroom>,
    /// How long the flusher's syncs take.
    latency: Latency,
}

impl LogStore {
    /// Opens (or creates) the log at `path`. Fails if anything but the torn end of the write-ahead
    /// log is damaged.
    pub fn open(path: &Path) -> Result<Self, RaftError> {
        let db = Arc::new(open_log_db(path)?);
        let latency = Latency::default();
        let flusher =
            Flusher::start(Arc::clone(&db), path.to_owned(), latency.clone()).map_err(|error| {
                RaftError::Stopped(format!("cannot start the log flusher: {error}"))
            })?;
        let tail = Arc::<Tail>::default();
        let reader = LogReader::new(Arc::clone(&db), Arc::clone(&tail));
        reader.check_contiguous().map_err(|error| StorageError::Corrupt {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self { db, flusher: Arc::new(flusher), reader, tail, headroom: None, latency })
    }

    /// With a look at the volume before each write. Who asks for a write has looked already; this is for
    /// what Raft writes by itself, and for a volume that fills within that moment.
    #[must_use]
    pub(crate) fn watching(mut self, headroom: Headroom) -> Self {
        self.headroom = Some(headroom);
        self
    }

    /// Last index in the log, or the purge position if the log is empty; `None` for a new log.
    pub(crate) fn last_index(&self) -> io::Result<Option<u64>> {
        Ok(self.positions()?.last_log_id.map(|id| id.index))
    }

    /// Index up to which the log was purged.
    pub(crate) fn purged_index(&self) -> io::Result<Option<u64>> {
        Ok(self.positions()?.last_purged_log_id.map(|id| id.index))
    }

    fn positions(&self) -> io::Result<LogState<TypeConfig>> {
        let purged: Option<LogIdRecord> = self.reader.get_meta(LOG_ID, KEY_PURGED)?;
        let purged = purged.map(LogId::from);
        let last = self.reader.last_entry()?.map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    pub(crate) fn fsync_latency(&self) -> Latency {
        self.latency.clone()
    }

    /// Gives up the reserve if the volume has nothing else left.
    fn look_before_write(&self) {
        if let Some(headroom) = &self.headroom {
            let _ = headroom.room();
        }
    }

    /// After a write that failed RocksDB refuses all others, so that going on means starting again, as after a failed
    /// fsync. On a full volume its log has been cut to whole records then.
    fn write_failed(&self, error: rocksdb::Error) -> io::Error {
        let told = if is_full(&error) {
            format!("the volume is full; make room and start again, nothing is lost ({error})")
        } else {
            error.to_string()
        };
        fatal::die("write the Raft log", self.db.path(), &told)
    }

    /// Waits until everything written before this call is on disk.
    async fn synced(&self) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.flusher.submit(FlushJob::Waiter(done))?;
        wait.await.map_err(|_| io::Error::other("the Raft log flusher has stopped"))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.positions()
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = encode(VOTE, &VoteRecord::from(vote)).map_err(to_io)?;
        let handle = column(&self.db, LogColumn::Meta)?;
        self.look_before_write();
        self.db.put_cf(handle, KEY_VOTE, bytes).map_err(|error| self.write_failed(error))?;
        failpoint::hit("raft_log.vote_written");
        self.synced().await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // Not synced: it only spares work after a restart, and a lost one is told again by the leader.
        let handle = column(&self.db, LogColumn::Meta)?;
        match committed {
            Some(id) => {
                let bytes = encode(LOG_ID, &LogIdRecord::from(&id)).map_err(to_io)?;
                self.db.put_cf(handle, KEY_COMMITTED, bytes)
            }
            None => self.db.delete_cf(handle, KEY_COMMITTED),
        }
        .map_err(|error| self.write_failed(error))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let record: Option<LogIdRecord> = self.reader.get_meta(LOG_ID, KEY_COMMITTED)?;
        Ok(record.map(LogId::from))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let handle = column(&self.db, LogColumn::Entries)?;
        let mut batch = WriteBatch::default();
        let mut written = Vec::new();
        for entry in entries {
            let key = entry.log_id.index.to_be_bytes();
            let encoded = encode_entry(entry.clone()).map_err(to_io)?;
            batch.put_cf(handle, key, &encoded);
            written.push(Written { entry, bytes: encoded.len() });
        }
        self.look_before_write();
        self.db.write(batch).map_err(|error| self.write_failed(error))?;
        self.tail.append(written);
        failpoint::hit("raft_log.entries_written");
        self.flusher.submit(FlushJob::Appended(callback))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let first_removed = last_log_id.map_or(0, |id| id.index.saturating_add(1));
        self.tail.truncate_from(first_removed);
        let handle = column(&self.db, LogColumn::Entries)?;
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(handle, first_removed.to_be_bytes(), u64::MAX.to_be_bytes());
        self.db.write(batch).map_err(|error| self.write_failed(error))?;
        failpoint::hit("raft_log.truncated");
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.tail.purge_to(log_id.index);
        let entries = column(&self.db, LogColumn::Entries)?;
        let meta = column(&self.db, LogColumn::Meta)?;
        let mut batch = WriteBatch::default();
        // One batch: a purge position without the purge, or the reverse, would be a hole.
        batch.put_cf(meta, KEY_PURGED, encode(LOG_ID, &LogIdRecord::from(&log_id)).map_err(to_io)?);
        let start = self.reader.first_index()?.unwrap_or(0);
        batch.delete_range_cf(
            entries,
            start.to_be_bytes(),
            log_id.index.saturating_add(1).to_be_bytes(),
        );
        self.db.write(batch).map_err(|error| self.write_failed(error))?;
        failpoint::hit("raft_log.purged");
        Ok(())
    }
}
