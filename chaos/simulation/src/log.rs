//! A Raft log on a simulated disk: the rules of `tercet-raft`'s log store (entries are readable at once and
//! confirmed once they are synced, in order; a vote is told once it is synced), without its files and its thread.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, RaftLogReader};
use tercet_raft::simulation::{
    Entry, LogId, TypeConfig, Vote, decode_entry, decode_log_id, decode_vote, encode_entry,
    encode_log_id, encode_vote,
};
use tokio::sync::{mpsc, oneshot};

use crate::disk::{LogDisk, LogWrite};
use crate::mutation::Mutation;
use crate::world::World;

/// Entries in one message to a follower.
const REPLICATED_MAX: usize = 64;

/// Whom to tell once everything written so far is on disk.
enum Job {
    Appended(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<()>),
}

/// The log of one replica.
#[derive(Clone)]
pub(crate) struct SimulatedLog {
    disk: Arc<Mutex<LogDisk>>,
    jobs: mpsc::UnboundedSender<Job>,
    world: World,
    own: usize,
}

impl SimulatedLog {
    /// Opens the log of replica `own`, in its runtime.
    pub(crate) fn open(world: &World, own: usize, disk: Arc<Mutex<LogDisk>>) -> Self {
        // As RocksDB does, which writes what it recovers into a table and syncs that: openraft takes what it finds at its
        // start for synced.
        let mut found = disk.lock().unwrap_or_else(PoisonError::into_inner);
        let written = found.written();
        found.sync(written);
        drop(found);
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(flush(world.clone(), own, Arc::clone(&disk), queue));
        Self { disk, jobs, world: world.clone(), own }
    }

    fn disk(&self) -> MutexGuard<'_, LogDisk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, write: LogWrite) {
        self.world.note(|| format!("replica {} writes {write} to its log", self.own));
        self.disk().write(write);
    }

    fn submit(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).map_err(|_| io::Error::other("the simulated flusher has stopped"))
    }

    fn entries(&self, start: u64, end: u64, max: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let disk = self.disk();
        let found = disk.live.entries.range(start..end).take(max);
        found.map(|(_, bytes)| decode_entry(bytes)).collect()
    }
}

/// Group commit: one sync makes everything durable that was written before it began.
async fn flush(
    world: World,
    own: usize,
    disk: Arc<Mutex<LogDisk>>,
    mut queue: mpsc::UnboundedReceiver<Job>,
) {
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        while let Ok(job) = queue.try_recv() {
            batch.push(job);
        }
        let written = disk.lock().unwrap_or_else(PoisonError::into_inner).written();
        tokio::time::sleep(world.sync_time(own)).await;
        disk.lock().unwrap_or_else(PoisonError::into_inner).sync(written);
        world.note(|| format!("replica {own} has synced {written} writes of its log"));
        for job in batch {
            match job {
                Job::Appended(callback) => callback.io_completed(Ok(())),
                Job::Waiter(waiter) => drop(waiter.send(())),
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for SimulatedLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = half_open(&range);
        self.entries(start, end, usize::MAX)
    }

    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> impl stream::Stream<Item = io::Result<Entry>> + Send {
        let (start, end) = half_open(&range);
        let entries = match self.entries(start, end, usize::MAX) {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.entries(start, end, REPLICATED_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.disk().live.vote.as_deref().map(decode_vote).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for SimulatedLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let disk = self.disk();
        let purged = disk.live.purged.as_deref().map(decode_log_id).transpose()?;
        let last = disk.live.entries.last_key_value();
        let last = last.map(|(_, bytes)| decode_entry(bytes)).transpose()?;
        let last = last.map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let write = LogWrite::Vote(encode_vote(vote)?);
        if self.world.mutation() == Some(Mutation::VoteNotPersisted) {
            self.disk().pretend(&write);
            return Ok(());
        }
        self.write(write);
        let (done, wait) = oneshot::channel();
        self.submit(Job::Waiter(done))?;
        wait.await.map_err(|_| io::Error::other("the simulated flusher has stopped"))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let position = committed.as_ref().map(encode_log_id).transpose()?;
        self.write(LogWrite::Committed(position));
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.disk().live.committed.as_deref().map(decode_log_id).transpose()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: io::Result<Vec<(u64, Vec<u8>)>> = entries
            .into_iter()
            .map(|entry| Ok((entry.log_id.index, encode_entry(entry)?)))
            .collect();
        self.write(LogWrite::Append(entries?));
        if self.world.mutation() == Some(Mutation::AckBeforeFsync) {
            callback.io_completed(Ok(()));
            let (done, _) = oneshot::channel();
            return self.submit(Job::Waiter(done));
        }
        self.submit(Job::Appended(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |id| id.index.saturating_add(1));
        self.write(LogWrite::Truncate(first));
        Ok(())
    }

    async fn purge(&mut self, position: LogId) -> io::Result<()> {
        self.write(LogWrite::Purge(position.index, encode_log_id(&position)?));
        Ok(())
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
