//! One question to one peer: how long it may take, and what its failures mean.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;

use super::client::Client;
use super::directory::Peer;
use super::error::{PeerError, causes};
use super::stall::{Patience, Progress, no_longer_than};
use super::wire::{self, OffsetAnswer};

/// For answers that need no more than a look at memory or a directory entry.
pub(super) const SHORT_ANSWER: Duration = Duration::from_secs(3);
/// Longest text of a refusal that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// One question to one peer; gives every error its context.
pub(super) struct Call<'a> {
    pub(super) client: &'a Client,
    pub(super) peer: &'a Peer,
    pub(super) operation: &'static str,
}

impl Call<'_> {
    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, PeerError> {
        let url =
            self.client.url(&self.peer.address, path).map_err(|reason| self.not_sent(reason))?;
        let request = self.client.bulk_http().request(method, url);
        Ok(self.client.addressed(request, self.peer.node_id))
    }

    /// Sends a request without a body and waits for the head of a good answer.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        patience: Duration,
    ) -> Result<Response, PeerError> {
        let progress = Progress::new();
        progress.no_body();
        self.answer(request, &progress, Patience { chunk: patience, answer: patience }).await
    }

    /// Sends a request with a body and waits for the head of a good answer: as long as bytes are
    /// taken, then `patience`.
    pub(super) async fn send_body<S, E>(
        &self,
        request: RequestBuilder,
        body: S,
        length: Option<u64>,
        patience: Duration,
    ) -> Result<Response, PeerError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let progress = Progress::new();
        let metrics = Arc::clone(self.client.metrics());
        let counted =
            body.inspect_ok(move |chunk| metrics.peer_bytes_sent.inc_by(chunk.len() as u64));
        let body = progress.observe(counted.boxed(), length);
        let request = request.body(reqwest::Body::wrap_stream(body));
        let patience = Patience { chunk: self.client.stall(), answer: patience };
        self.answer(request, &progress, patience).await
    }

    async fn answer(
        &self,
        request: RequestBuilder,
        progress: &Progress,
        patience: Patience,
    ) -> Result<Response, PeerError> {
        let response = match progress.wait(patience, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(waited) => return Err(self.timed_out(waited)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let message = read_message(response, SHORT_ANSWER).await;
        if status == StatusCode::RANGE_NOT_SATISFIABLE
            && let Ok(OffsetAnswer { offset }) = serde_json::from_str(&message)
        {
            return Err(PeerError::OtherOffset {
                peer: self.peer.name.clone(),
                operation: self.operation,
                offset,
            });
        }
        Err(PeerError::Refused {
            peer: self.peer.name.clone(),
            operation: self.operation,
            status: status.as_u16(),
            message,
        })
    }

    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        response: Response,
    ) -> Result<T, PeerError> {
        let read = read_bounded(response, wire::JSON_BYTES_MAX);
        let body = match tokio::time::timeout(SHORT_ANSWER, read).await {
            Ok(body) => body.map_err(|reason| self.broken(reason))?,
            Err(_) => return Err(self.timed_out(SHORT_ANSWER)),
        };
        serde_json::from_slice(&body).map_err(|error| self.broken(error))
    }

    /// The answer's `Content-Length`; reqwest's own accessor does not see it on HEAD.
    pub(super) fn length(&self, response: &Response) -> Result<u64, PeerError> {
        response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| self.broken("no Content-Length"))
    }

    /// The answer's bytes: `expected` of them, or an error.
    pub(super) fn body(
        &self,
        response: Response,
        expected: u64,
    ) -> BoxStream<'static, Result<Bytes, PeerError>> {
        let (peer, operation) = (self.peer.name.clone(), self.operation);
        let broken =
            move |reason: String| PeerError::Broken { peer: peer.clone(), operation, reason };
        let (name, client, suspect) =
            (self.peer.name.clone(), self.client.clone(), self.peer.clone());
        let received = response.bytes_stream().map_err({
            let broken = broken.clone();
            move |error| broken(causes(&error))
        });
        let received = no_longer_than(received.boxed(), self.client.stall(), move |waited| {
            client.suspect(&suspect);
            PeerError::TimedOut { peer: name.clone(), operation, waited }
        });
        let metrics = Arc::clone(self.client.metrics());
        let counted = received
            .inspect_ok(move |chunk| metrics.peer_bytes_received.inc_by(chunk.len() as u64));
        exactly(counted.boxed(), expected, broken).boxed()
    }

    /// Sorts a failure into "surely not received" and "who knows".
    fn failed(&self, error: &reqwest::Error) -> PeerError {
        if error.is_connect() {
            self.client.suspect(self.peer);
            return self.not_sent(causes(error));
        }
        if error.is_builder() {
            return self.not_sent(causes(error));
        }
        self.broken(causes(error))
    }

    fn not_sent(&self, reason: String) -> PeerError {
        PeerError::NotSent { peer: self.peer.name.clone(), operation: self.operation, reason }
    }

    fn timed_out(&self, waited: Duration) -> PeerError {
        self.client.suspect(self.peer);
        PeerError::TimedOut { peer: self.peer.name.clone(), operation: self.operation, waited }
    }

    pub(super) fn broken(&self, reason: impl Display) -> PeerError {
        PeerError::Broken {
            peer: self.peer.name.clone(),
            operation: self.operation,
            reason: reason.to_string(),
        }
    }
}

/// Reads a body that has to be small, whatever its header says.
pub(super) async fn read_bounded(response: Response, limit: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| causes(&error))?;
        if body.len() + chunk.len() > limit {
            return Err(format!("the answer is longer than {limit} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A refusal's text, cut to what a log line can hold.
pub(super) async fn read_message(response: Response, deadline: Duration) -> String {
    match tokio::time::timeout(deadline, read_bounded(response, wire::JSON_BYTES_MAX)).await {
        Ok(Ok(body)) => {
            let text = String::from_utf8_lossy(&body);
            text.chars().take(MESSAGE_BYTES_MAX).collect()
        }
        Ok(Err(reason)) => reason,
        Err(_) => "its explanation did not come in time".to_owned(),
    }
}

/// Turns a short or an overlong stream into an error; an overlong one before its surplus is given
/// out.
fn exactly(
    inner: BoxStream<'static, Result<Bytes, PeerError>>,
    expected: u64,
    broken: impl Fn(String) -> PeerError + Send + 'static,
) -> impl Stream<Item = Result<Bytes, PeerError>> + Send + 'static {
    futures_util::stream::unfold(Some((inner, expected, broken)), |state| async move {
        let (mut inner, left, broken) = state?;
        match inner.next().await {
            Some(Ok(chunk)) => match left.checked_sub(chunk.len() as u64) {
                Some(left) => Some((Ok(chunk), Some((inner, left, broken)))),
                None => Some((Err(broken("more bytes than announced".to_owned())), None)),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None if left == 0 => None,
            None => Some((Err(broken(format!("ended {left} bytes early"))), None)),
        }
    })
}
