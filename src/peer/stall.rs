//! Deadlines for streams: a stream may take as long as it moves, and no longer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;

/// Where a body that is being sent stands.
mod state {
    /// Nobody has asked for its first byte yet.
    pub(super) const NEW: u8 = 0;
    /// The receiver wants more and the source has none: the receiver is not to blame.
    pub(super) const SOURCE_IS_DRY: u8 = 1;
    /// The last chunk was taken; the receiver has not asked for the next yet.
    pub(super) const TAKEN: u8 = 2;
    /// All of it was taken: only the answer is missing.
    pub(super) const ENDED: u8 = 3;
}

/// How long a receiver may make us wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For taking the next chunk.
    pub(super) chunk: Duration,
    /// For its answer, once it has all of the body.
    pub(super) answer: Duration,
}

/// Tells the one who waits for an answer how far the body has come.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    moved_ms: AtomicU64,
    state: AtomicU8,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            moved_ms: AtomicU64::new(0),
            state: AtomicU8::new(state::NEW),
        }))
    }

    /// The body, observed. With a known length, its end is noticed without asking for more: an HTTP
    /// client does not ask either.
    pub(super) fn observe<S>(&self, inner: S, length: Option<u64>) -> Observed<S> {
        Observed { inner, left: length, progress: self.clone() }
    }

    /// For a request without a body.
    pub(super) fn no_body(&self) {
        self.enter(state::ENDED);
    }

    /// Waits for the answer. `Err` is how long nothing happened.
    pub(super) async fn wait<F: Future>(
        &self,
        patience: Patience,
        answer: F,
    ) -> Result<F::Output, Duration> {
        tokio::pin!(answer);
        loop {
            let limit = match self.0.state.load(Ordering::Acquire) {
                state::ENDED => patience.answer,
                _ => patience.chunk,
            };
            let moved =
                self.0.started + Duration::from_millis(self.0.moved_ms.load(Ordering::Acquire));
            tokio::select! {
                biased;
                output = &mut answer => return Ok(output),
                () = tokio::time::sleep_until(moved + limit) => {}
            }
            let unmoved = self.0.started
                + Duration::from_millis(self.0.moved_ms.load(Ordering::Acquire))
                == moved;
            let state = self.0.state.load(Ordering::Acquire);
            if state == state::SOURCE_IS_DRY {
                // The source has its own deadline; start the receiver's anew.
                self.touch();
            } else if unmoved && moved.elapsed() >= limit {
                return Err(limit);
            }
        }
    }

    fn enter(&self, state: u8) {
        self.0.state.store(state, Ordering::Release);
        self.touch();
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved_ms.store(elapsed, Ordering::Release);
    }
}

/// A body that reports to its [`Progress`].
#[derive(Debug)]
pub(super) struct Observed<S> {
    inner: S,
    left: Option<u64>,
    progress: Progress,
}

impl<S, E> Stream for Observed<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Item = Result<Bytes, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.inner).poll_next(cx);
        if let (Poll::Ready(Some(Ok(chunk))), Some(left)) = (&polled, &mut self.left) {
            *left = left.saturating_sub(chunk.len() as u64);
        }
        self.progress.enter(match &polled {
            Poll::Pending => state::SOURCE_IS_DRY,
            Poll::Ready(Some(_)) if self.left == Some(0) => state::ENDED,
            Poll::Ready(Some(_)) => state::TAKEN,
            Poll::Ready(None) => state::ENDED,
        });
        polled
    }
}

/// A received stream that fails when the next item takes longer than `limit`, and ends after the
/// first failure.
pub(super) fn no_longer_than<S, T, E>(
    inner: S,
    limit: Duration,
    stalled: impl Fn(Duration) -> E + Send + 'static,
) -> impl Stream<Item = Result<T, E>> + Send + 'static
where
    S: Stream<Item = Result<T, E>> + Send + Unpin + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    stream::unfold(Some((inner, stalled)), move |state| async move {
        let (mut inner, stalled) = state?;
        match tokio::time::timeout(limit, inner.next()).await {
            Ok(Some(Ok(item))) => Some((Ok(item), Some((inner, stalled)))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(stalled(limit)), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const PATIENCE: Patience =
        Patience { chunk: Duration::from_millis(40), answer: Duration::from_millis(400) };

    type Chunk = Result<Bytes, std::io::Error>;

    fn chunk() -> Chunk {
        Ok(Bytes::from_static(b"abc"))
    }

    #[tokio::test]
    async fn a_receiver_that_takes_nothing_is_given_up() {
        let progress = Progress::new();
        let mut body = progress.observe(stream::iter([chunk(), chunk()]), Some(6));
        body.next().await.unwrap().unwrap();
        let waited = progress.wait(PATIENCE, std::future::pending::<()>()).await;
        assert_eq!(waited, Err(PATIENCE.chunk));
    }

    #[tokio::test]
    async fn a_dry_source_is_not_the_receivers_fault() {
        let progress = Progress::new();
        let mut body = progress.observe(stream::pending::<Chunk>(), None);
        assert!(futures_util::poll!(body.next()).is_pending());
        let answer = tokio::time::sleep(PATIENCE.chunk * 5);
        assert!(progress.wait(PATIENCE, answer).await.is_ok());
    }

    #[tokio::test]
    async fn the_answer_has_its_own_deadline() {
        let progress = Progress::new();
        let mut body = progress.observe(stream::iter([chunk()]), Some(3));
        body.next().await.unwrap().unwrap();
        let answer = tokio::time::sleep(PATIENCE.chunk * 3);
        assert!(progress.wait(PATIENCE, answer).await.is_ok());
        let waited = progress.wait(PATIENCE, std::future::pending::<()>()).await;
        assert_eq!(waited, Err(PATIENCE.answer));
    }
}
