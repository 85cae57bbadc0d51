//! The read barrier: one rule for every metadata read.
//!
//! A reader waits until this replica has applied everything that was acknowledged anywhere before the
//! reader asked. All readers that wait share one question to the leader: those who arrive while a
//! question is under way join the next one, since its answer may already be older than they are.
//!
//! When no leader answers in time, readers are told [`Freshness::Stale`] and serve what they have.
//! The replica then remembers: later readers do not each wait again while it keeps asking in the
//! background.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::Inner;
use crate::error::ProposeError;
use crate::network::{ReadIndexAnswer, RpcKind, decode_answer, encode_message};

/// How current an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Behind the read barrier: nothing acknowledged before the question is missing.
    Fresh,
    /// From local state while no leader answers.
    Stale,
}

/// Readers waiting at once; more are told `Stale`. Far above the connection cap.
const WAITING_MAX: usize = 65_536;
/// Pause between two attempts while a leader is looked for.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause between two questions while the replica knows that it is stale.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// A write that meets a replica which has been stale for longer than this is refused at once. Before
/// that it waits: most leaderless moments are an election.
const REFUSE_WRITES_AFTER: Duration = Duration::from_secs(5);

/// A write trusts a leader that has answered so lately. It needs no fresh state, as a read does: it is judged where it is
/// applied, and the barrier only tells it early that there is no majority. So under load not every write asks.
const TRUSTED_FOR: Duration = Duration::from_millis(200);

/// The readers' side of the barrier.
pub(crate) struct ReadBarrier {
    waiting: mpsc::Sender<oneshot::Sender<Freshness>>,
    stale_since: Mutex<Option<Instant>>,
    /// When the last question began that a leader has answered.
    confirmed: Mutex<Option<Instant>>,
}

impl ReadBarrier {
    pub(crate) fn new() -> (Self, mpsc::Receiver<oneshot::Sender<Freshness>>) {
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        (Self { waiting, stale_since: Mutex::new(None), confirmed: Mutex::new(None) }, queue)
    }

    /// See [`crate::Consensus::read_barrier`].
    pub(crate) async fn pass(&self) -> Freshness {
        if self.stale_for().is_some() {
            return Freshness::Stale;
        }
        let (answer, wait) = oneshot::channel();
        if self.waiting.try_send(answer).is_err() {
            return Freshness::Stale;
        }
        wait.await.unwrap_or(Freshness::Stale)
    }

    /// See [`crate::Consensus::write_barrier`].
    pub(crate) async fn pass_for_write(&self, patience: Duration) -> Result<(), ProposeError> {
        if self.was_confirmed_within(TRUSTED_FOR) {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        loop {
            if self.pass().await == Freshness::Fresh {
                return Ok(());
            }
            let long = self.stale_for().is_some_and(|age| age > REFUSE_WRITES_AFTER);
            if long || Instant::now() + PROBE_PAUSE > deadline {
                return Err(ProposeError::Unavailable(
                    "no leader is reachable from this replica; pulls go on, pushes must wait for a majority"
                        .to_owned(),
                ));
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
    }

    /// How long this replica has known that no leader answers; `None` while one does.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        self.stale_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    fn was_confirmed_within(&self, age: Duration) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        self.stale_for().is_none() && confirmed.is_some_and(|began| began.elapsed() < age)
    }

    /// What became of a question that `began` then.
    fn remember(&self, freshness: Freshness, began: Instant) {
        if freshness == Freshness::Fresh {
            *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        }
        let mut since = self.stale_since.lock().unwrap_or_else(PoisonError::into_inner);
        match (freshness, *since) {
            (Freshness::Fresh, Some(began)) => {
                tracing::info!(after = ?began.elapsed(), "a leader answers again");
                *since = None;
            }
            (Freshness::Stale, None) => {
                tracing::warn!("no leader answers: serving pulls from local state, marked stale");
                *since = Some(Instant::now());
            }
            _ => {}
        }
    }
}

/// Asks for all waiting readers together, until stopped.
pub(crate) async fn run(
    inner: Arc<Inner>,
    mut queue: mpsc::Receiver<oneshot::Sender<Freshness>>,
    stop: CancellationToken,
) {
    loop {
        let probing = inner.barrier.stale_for().is_some();
        let mut readers = Vec::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = queue.recv() => match received {
                None => return,
                Some(first) => readers.push(first),
            },
            () = tokio::time::sleep(PROBE_PAUSE), if probing => {}
        }
        while let Ok(reader) = queue.try_recv() {
            readers.push(reader);
        }
        let began = Instant::now();
        let freshness = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            confirmed = tokio::time::timeout(inner.timing.read_deadline, inner.confirm()) => {
                confirmed.map_or(Freshness::Stale, |()| Freshness::Fresh)
            }
        };
        inner.barrier.remember(freshness, began);
        for reader in readers {
            // The reader may have gone away.
            let _ = reader.send(freshness);
        }
    }
}

impl Inner {
    /// Returns once this replica has applied everything acknowledged before the call.
    pub(crate) async fn confirm(&self) {
        loop {
            let index = match self.leader() {
                Some(leader) if leader.node_id == self.identity.node_id => {
                    match self.own_read_index().await {
                        ReadIndexAnswer::Index(index) => Some(index),
                        ReadIndexAnswer::NotLeader => None,
                    }
                }
                Some(leader) => self.ask_read_index(&leader).await,
                None => None,
            };
            if let Some(index) = index {
                let mut applied = self.applied.clone();
                let reached = applied.wait_until_ge(&Some(index)).await.is_ok();
                if reached {
                    return;
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The leader's answer to a follower's question.
    pub(crate) async fn answer_read_index(&self) -> ReadIndexAnswer {
        tokio::time::timeout(self.timing.read_deadline, self.own_read_index())
            .await
            .unwrap_or(ReadIndexAnswer::NotLeader)
    }

    /// The read index, if this replica leads and a quorum has confirmed so within
    /// [`RaftTiming::read_lease`](crate::RaftTiming), or does when asked. Followers keep such a promise
    /// by not voting for that long, restarts included. openraft's own lease is longer; a leader that
    /// has lost its followers should say so soon.
    async fn own_read_index(&self) -> ReadIndexAnswer {
        let confirmed = LinearizerOption::new(Some(self.timing.read_lease()), true)
            .with_wait_timeout(self.timing.read_deadline);
        match self.raft.get_read_log_id(confirmed).await {
            Ok((read, _)) => ReadIndexAnswer::Index(read.index()),
            Err(_) => ReadIndexAnswer::NotLeader,
        }
    }

    async fn ask_read_index(&self, leader: &crate::network::Target) -> Option<u64> {
        let body = encode_message(RpcKind::ReadIndex, &()).ok()?;
        let answer = self
            .transport
            .call(leader, RpcKind::ReadIndex, body, self.timing.read_deadline)
            .await
            .ok()?;
        match decode_answer(RpcKind::ReadIndex, &answer).ok()? {
            ReadIndexAnswer::Index(index) => Some(index),
            ReadIndexAnswer::NotLeader => None,
        }
    }
}
