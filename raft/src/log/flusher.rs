//! Group commit: one thread that makes everything written before it durable, in order.
//!
//! Writers put their bytes into RocksDB's write-ahead log without syncing and queue a job here. The
//! thread takes every job that waits, syncs once, and tells all of them. While it syncs, the next
//! jobs gather: under load one fsync carries many entries.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::IOFlushed;
use rocksdb::DB;
use tercet_storage::planted::{PlantedBug, is_planted};
use tercet_storage::{failpoint, fatal};
use tokio::sync::oneshot;

use crate::latency::Latency;
use crate::type_config::TypeConfig;

/// Whom to tell once everything written so far is on disk.
pub(super) enum FlushJob {
    /// openraft's callback for appended entries.
    Appended(IOFlushed<TypeConfig>),
    /// A caller that waits.
    Waiter(oneshot::Sender<()>),
}

/// Owns the thread. Dropping it finishes the queue first.
pub(super) struct Flusher {
    jobs: Option<Sender<FlushJob>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(db: Arc<DB>, path: PathBuf, latency: Latency) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("raft-log-flush".to_owned())
            .spawn(move || run(&db, &path, &queue, &latency))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job. Bounded by what openraft has in flight.
    pub(super) fn submit(&self, job: FlushJob) -> std::io::Result<()> {
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .ok_or_else(|| std::io::Error::other("the Raft log flusher has stopped"))
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(db: &DB, path: &std::path::Path, queue: &Receiver<FlushJob>, latency: &Latency) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter());
        failpoint::hit("raft_log.before_sync");
        let began = Instant::now();
        // A failed fsync may have thrown the dirty pages away: retrying would report success for
        // bytes that are gone. The process ends and recovers from what the disk really holds.
        if !is_planted(PlantedBug::SkipLogFsync)
            && let Err(error) = db.flush_wal(true)
        {
            fatal::die("sync the Raft log", path, &error);
        }
        latency.record(began.elapsed());
        failpoint::hit("raft_log.after_sync");
        for job in batch {
            match job {
                FlushJob::Appended(callback) => callback.io_completed(Ok(())),
                // The waiter may have gone; its bytes are durable all the same.
                FlushJob::Waiter(waiter) => drop(waiter.send(())),
            }
        }
    }
}
