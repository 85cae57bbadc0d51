//! Hands a client's request to the replica that has to answer it, streaming both ways.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::http::{HeaderMap, HeaderName, Method, Request, Response, header};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::call::read_message;
use super::client::Client;
use super::directory::Peer;
use super::error::{ForwardError, causes};
use super::stall::{Patience, Progress, no_longer_than};
use super::wire::{FORWARD_PREFIX, HEADER_PREFIX, NOT_DELIVERED_HEADER};

/// The other replica has this long to take the next bytes of a request.
const TAKE_STALL: Duration = Duration::from_secs(10);
/// For the head of the answer to a read: the read barrier, and at worst a look at all peers.
const READ_ANSWER: Duration = Duration::from_secs(15);
/// For the head of the answer to a write, once its body is there: closing an upload hashes, fsyncs
/// and copies it.
const WRITE_ANSWER: Duration = Duration::from_secs(180);
/// For the next bytes of an answer, which the other replica may itself be fetching.
const ANSWER_STALL: Duration = Duration::from_secs(20);
/// For the text of a refusal.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(2);

/// Meant for one connection (RFC 9110, section 7.6.1), or set anew for the next.
const NOT_PASSED_ON: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

impl Client {
    /// Passes a client's request on to `peer`'s registry and its answer back. The receiver sees it
    /// marked as [`Forwarded`](super::Forwarded) and so answers it itself.
    ///
    /// # Errors
    /// [`ForwardError::NotDelivered`] when the peer's registry surely did not see the request, with
    /// the request inside if none of its body was consumed; [`ForwardError::Unknown`] otherwise.
    pub async fn forward(
        &self,
        peer: &Peer,
        request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        self.pass_on(peer, FORWARD_PREFIX, request).await
    }

    /// Sends a request to `peer`'s own listener: its path begins with [`ADMIN_PREFIX`](super::wire::ADMIN_PREFIX). Marked as
    /// [`Forwarded`](super::Forwarded) if this client has the identity of a replica.
    ///
    /// # Errors
    /// As [`Client::forward`].
    pub async fn administer(
        &self,
        peer: &Peer,
        request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        self.pass_on(peer, "", request).await
    }

    async fn pass_on(
        &self,
        peer: &Peer,
        prefix: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, ForwardError> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = match self.url(&peer.address, &format!("{prefix}{path}")) {
            Ok(url) => url,
            Err(reason) => {
                let request = Some(Box::new(Request::from_parts(parts, body)));
                return Err(ForwardError::NotDelivered {
                    peer: peer.name.clone(),
                    reason,
                    request,
                });
            }
        };

        let progress = Progress::new();
        let mut outgoing =
            self.bulk_http().request(parts.method.clone(), url).headers(passed_on(&parts.headers));
        outgoing = self.addressed(outgoing, peer.node_id);
        let slot = Slot::default();
        if body.is_end_stream() {
            progress.no_body();
            slot.put(body);
        } else {
            let length = body.size_hint().exact();
            slot.put(body);
            let observed = progress.observe(LazyBody::Untouched(slot.clone()), length);
            outgoing = outgoing.body(reqwest::Body::wrap_stream(observed));
        }
        let patience = Patience { chunk: TAKE_STALL, answer: answer_patience(&parts.method) };

        let not_delivered = |reason: String| ForwardError::NotDelivered {
            peer: peer.name.clone(),
            reason,
            request: slot.take().map(|body| Box::new(Request::from_parts(parts.clone(), body))),
        };
        let answer = match progress.wait(patience, outgoing.send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_connect() || error.is_builder() => {
                self.suspect(peer);
                return Err(not_delivered(causes(&error)));
            }
            Ok(Err(error)) => {
                let (peer, reason) = (peer.name.clone(), causes(&error));
                return Err(ForwardError::Unknown { peer, reason });
            }
            Err(waited) => {
                self.suspect(peer);
                let reason = format!("nothing for {waited:?}");
                return Err(ForwardError::Unknown { peer: peer.name.clone(), reason });
            }
        };
        if answer.headers().contains_key(NOT_DELIVERED_HEADER) {
            return Err(not_delivered(read_message(answer, MESSAGE_DEADLINE).await));
        }
        Ok(handed_back(answer))
    }
}

fn answer_patience(method: &Method) -> Duration {
    if method == Method::GET || method == Method::HEAD { READ_ANSWER } else { WRITE_ANSWER }
}

/// The answer as the client gets it. A stream that breaks here breaks there too.
fn handed_back(answer: reqwest::Response) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = passed_on(answer.headers());
    let stream = answer.bytes_stream().map_err(|error| std::io::Error::other(causes(&error)));
    let stream = no_longer_than(stream.boxed(), ANSWER_STALL, |waited| {
        std::io::Error::new(std::io::ErrorKind::TimedOut, format!("nothing for {waited:?}"))
    });
    *response.body_mut() = Body::from_stream(stream);
    response
}

/// Without what belongs to the connection, what `Connection` names, and what only replicas say.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers
        .iter()
        .filter(|(name, _)| {
            !NOT_PASSED_ON.contains(name)
                && !name.as_str().starts_with(HEADER_PREFIX)
                && !named.iter().any(|dropped| dropped == name.as_str())
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Holds a body until it is really asked for, so that a request that never left can be handed back
/// whole.
#[derive(Debug, Clone, Default)]
struct Slot(Arc<Mutex<Option<Body>>>);

impl Slot {
    fn put(&self, body: Body) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes the body out of its slot at the first poll.
enum LazyBody {
    Untouched(Slot),
    Streaming(BodyDataStream),
}

impl Stream for LazyBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Self::Untouched(slot) = &*self {
            let Some(body) = slot.take() else { return Poll::Ready(None) };
            *self = Self::Streaming(body.into_data_stream());
        }
        match &mut *self {
            Self::Streaming(stream) => stream.poll_next_unpin(cx),
            Self::Untouched(_) => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("host", "registry.example"),
            ("tercet-cluster-id", "forged"),
            ("authorization", "Bearer x"),
            ("content-length", "5"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let passed = passed_on(&headers);
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-length"]);
    }
}
