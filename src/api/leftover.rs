//! What a refused request has not sent yet.
//!
//! Closing a connection with unread bytes in it resets it, and a reset overtakes the answer: the client
//! would see "connection reset" in place of the reason. So the rest of a body is read and dropped, up
//! to a bound; a client with more to send than that has to look for the answer while it sends.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};

/// Most bytes that are read for nothing.
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest time spent on that.
const DISCARD_PATIENCE: Duration = Duration::from_secs(3);

/// The unread end of a request's body.
pub(super) struct Leftover(Slot);

type Slot = Arc<Mutex<Option<Body>>>;

impl Leftover {
    /// The request as it was, and a hold on its body.
    pub(super) fn of(request: Request) -> (Request, Self) {
        // A client that waits to be told to send is told the answer instead. Reading here would tell
        // it to send.
        let waits = request.headers().contains_key(EXPECT);
        if waits || request.body().is_end_stream() {
            return (request, Self(Slot::default()));
        }
        let (parts, body) = request.into_parts();
        let slot: Slot = Arc::new(Mutex::new(Some(body)));
        let body = Body::new(Shared(Arc::clone(&slot)));
        (Request::from_parts(parts, body), Self(slot))
    }

    /// Reads and drops what is left of the body.
    pub(super) async fn discard(self) {
        self.discard_within(DISCARD_PATIENCE).await;
    }

    async fn discard_within(self, patience: Duration) {
        let Some(body) = lock(&self.0).take() else { return };
        let mut stream = body.into_data_stream();
        let discard = async {
            let mut discarded = 0;
            while let Some(Ok(bytes)) = stream.next().await {
                discarded += bytes.len();
                if discarded > DISCARDED_BYTES_MAX {
                    break;
                }
            }
        };
        // Whether it was all or not, the answer goes out now.
        let _ = tokio::time::timeout(patience, discard).await;
    }
}

/// The body that the handler gets. It lets go of the real one at its end.
struct Shared(Slot);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut slot = lock(&self.0);
        let Some(body) = slot.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            *slot = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Body>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn what_the_handler_left_is_read() {
        let sent = Arc::new(Mutex::new(0));
        let count = Arc::clone(&sent);
        let chunks = futures_util::stream::iter(0..10).map(move |_| {
            *count.lock().unwrap() += 1;
            Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
        });
        let request = Request::new(Body::from_stream(chunks));
        let (request, leftover) = Leftover::of(request);
        let mut body = request.into_body().into_data_stream();
        body.next().await.unwrap().unwrap();
        drop(body);
        assert_eq!(*sent.lock().unwrap(), 1);
        leftover.discard().await;
        assert_eq!(*sent.lock().unwrap(), 10);
    }

    #[tokio::test]
    async fn a_silent_client_is_not_waited_for_long() {
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let (_request, leftover) = Leftover::of(Request::new(Body::from_stream(silent)));
        leftover.discard_within(Duration::from_millis(10)).await;
    }
}
