//! Bodies that know whose turn it is: requests that must not trickle, responses that are watched.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use super::activity::RequestGuard;
use super::limits::ServerLimits;

/// A request body came slower than `limits.body_rate_min_bytes`.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the request body came too slowly: {received} bytes in {} s of waiting, the least is {least}",
    window.as_secs()
)]
pub struct BodyTooSlow {
    /// Bytes that came within the window.
    pub received: u64,
    /// Bytes that had to come.
    pub least: u64,
    /// The time that was spent waiting for them.
    pub window: Duration,
}

/// A request body that fails when it comes too slowly. Only time spent waiting for the client
/// counts: while the handler writes to a slow disk, the client is not to blame.
pub(super) struct PacedBody<B> {
    inner: B,
    rate_min_bytes: u64,
    window: Duration,
    /// Of the present window: bytes received and time waited.
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> PacedBody<B> {
    pub(super) fn new(inner: B, limits: &ServerLimits) -> Self {
        Self {
            inner,
            rate_min_bytes: limits.body_rate_min_bytes,
            window: limits.body_rate_window,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
        }
    }

    /// Judges a window once it is full, and begins the next.
    fn judge(&mut self) -> Result<(), BodyTooSlow> {
        if self.waited < self.window {
            return Ok(());
        }
        let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        let least = self.rate_min_bytes.saturating_mul(window_ms) / 1_000;
        let received = std::mem::take(&mut self.received);
        self.waited = Duration::ZERO;
        if received >= least {
            return Ok(());
        }
        Err(BodyTooSlow { received, least, window: self.window })
    }
}

impl<B> HttpBody for PacedBody<B>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
                if let Some((since, _)) = this.waiting.take() {
                    this.waited += since.elapsed();
                }
                let Some(Ok(frame)) = frame else {
                    return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
                };
                if let Some(data) = frame.data_ref() {
                    this.received += data.len() as u64;
                }
                return Poll::Ready(Some(match this.judge() {
                    Ok(()) => Ok(frame),
                    Err(slow) => Err(slow.into()),
                }));
            }
            let left = this.window.saturating_sub(this.waited);
            let (_, sleep) = this
                .waiting
                .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.waiting = None;
            this.waited = this.window;
            if let Err(slow) = this.judge() {
                return Poll::Ready(Some(Err(slow.into())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body that tells the connection's watch whose turn it is, and that the request lasts
/// until its last byte.
pub(super) struct WatchedBody {
    inner: Body,
    request: RequestGuard,
}

impl WatchedBody {
    pub(super) fn new(inner: Body, request: RequestGuard) -> Self {
        Self { inner, request }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        this.request.asked();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            this.request.handed_over(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
