//! A connection that is kept, with one request on it at a time.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::{
    answer::{AnswerReader, Answered},
    endpoint::Endpoint,
    failure::Failure,
    head::Malformed,
    wire::Wire,
};

/// A request that is no longer is sent in one piece, head and body: one packet, one system call.
const ONE_PIECE_BYTES_MAX: usize = 16 * 1024;

/// What went over connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Connections that were opened.
    pub(super) connections: u64,
    /// Requests that were answered.
    pub(super) requests: u64,
    /// Bytes of bodies of answers.
    pub(super) received: u64,
    /// Bytes of bodies of requests.
    pub(super) sent: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// A client's connection to one server. It is opened when it is needed, and again when it has ended.
pub(crate) struct Connection {
    endpoint: Arc<Endpoint>,
    wire: Option<Wire>,
    answer: AnswerReader,
    /// Small requests are put together here.
    out: Vec<u8>,
    deadline: Duration,
    /// Fires at the deadline of some earlier request, or later. See [`within`].
    alarm: Pin<Box<Sleep>>,
    /// What is answered later than this is not counted as traffic.
    counts_until: Option<Instant>,
    traffic: Traffic,
}

impl Connection {
    /// A connection for requests that take no longer than `deadline`. Must be made inside a runtime.
    pub(crate) fn new(endpoint: Arc<Endpoint>, deadline: Duration) -> Self {
        Self {
            endpoint,
            wire: None,
            answer: AnswerReader::new(),
            out: Vec::new(),
            deadline,
            alarm: Box::pin(tokio::time::sleep(deadline)),
            counts_until: None,
            traffic: Traffic::default(),
        }
    }

    /// The value of `Host` for its requests.
    pub(super) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Counts from here on, up to `end`.
    pub(super) fn count_until(&mut self, end: Option<Instant>) {
        self.counts_until = end;
        self.traffic = Traffic::default();
    }

    /// What was counted.
    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Bytes of the last answer's body.
    pub(super) fn body_bytes(&self) -> u64 {
        self.answer.body_bytes()
    }

    /// The last answer's `Location`; empty without one.
    pub(super) fn location(&self) -> &str {
        self.answer.location()
    }

    /// Sends a request, reads the whole answer, and returns its status. Each part of its body is shown to `look`.
    pub(crate) async fn exchange(
        &mut self,
        head: &[u8],
        body: &[&[u8]],
        mut look: impl FnMut(&[u8]) + Send,
    ) -> Result<u16, Failure> {
        let kept = self.wire.is_some();
        let mut result = self.try_exchange(head, body, &mut look).await;
        // A server may end a connection that was idle, just when the next request is on its way. Clients ask
        // again then, if asking twice does no harm.
        let again = kept && result == Err(Failure::Closed) && self.answer.is_untouched();
        if again && head.starts_with(b"GET ") {
            self.wire = None;
            result = self.try_exchange(head, body, &mut look).await;
        }
        if result.is_err() || self.answer.closes() {
            self.wire = None;
        }
        result
    }

    async fn try_exchange(
        &mut self,
        head: &[u8],
        body: &[&[u8]],
        look: &mut (impl FnMut(&[u8]) + Send),
    ) -> Result<u16, Failure> {
        let Self { endpoint, wire, answer, out, alarm, counts_until, traffic, deadline } = self;
        answer.begin();
        let counts = |now: Instant| counts_until.is_none_or(|end| now < end);
        let work = async {
            if wire.is_none() {
                *wire = Some(endpoint.connect().await?);
                traffic.connections += 1;
            }
            let Some(wire) = wire.as_mut() else { return Err(Failure::Closed) };
            let bytes: usize = body.iter().map(|part| part.len()).sum();
            if body.is_empty() {
                wire.send(head).await.map_err(|_| Failure::Closed)?;
            } else if head.len() + bytes <= ONE_PIECE_BYTES_MAX {
                out.clear();
                out.extend_from_slice(head);
                body.iter().for_each(|part| out.extend_from_slice(part));
                wire.send(out).await.map_err(|_| Failure::Closed)?;
                traffic.sent += bytes as u64;
            } else {
                wire.send(head).await.map_err(|_| Failure::Closed)?;
                for part in body {
                    wire.send(part).await.map_err(|_| Failure::Closed)?;
                    if counts(Instant::now()) {
                        traffic.sent += part.len() as u64;
                    }
                }
            }
            wire.flush().await.map_err(|_| Failure::Closed)?;
            loop {
                let before = answer.body_bytes();
                let taken = wire.read(|bytes| match bytes.is_empty() {
                    true => answer.end(),
                    false => answer.take(bytes, look),
                });
                let answered = match taken.await.map_err(|_| Failure::Closed)? {
                    Ok(answered) => answered,
                    Err(Malformed::Cut) => return Err(Failure::Closed),
                    Err(_) => return Err(Failure::Malformed),
                };
                let more = answer.body_bytes() - before;
                let whole = answered == Answered::Wholly;
                if (more > 0 || whole) && counts(Instant::now()) {
                    traffic.received += more;
                    traffic.requests += u64::from(whole);
                }
                if whole {
                    return Ok(answer.status());
                }
            }
        };
        let end = Instant::now() + *deadline;
        within(alarm, end, work).await.unwrap_or(Err(Failure::Timeout))
    }
}

/// Gives up on `work` at `end`.
///
/// The alarm is that of earlier requests, and is only moved when it fires: to set a timer for each request would be a
/// good part of what a small request costs.
pub(crate) async fn within<T>(
    alarm: &mut Pin<Box<Sleep>>,
    end: Instant,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(value) = work.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        while alarm.as_mut().poll(context).is_ready() {
            if Instant::now() >= end {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(end.into());
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_never_ends_is_given_up_though_the_alarm_is_an_old_one() {
        let mut alarm = Box::pin(tokio::time::sleep(Duration::from_millis(1)));
        for _ in 0..3 {
            let (start, limit) = (Instant::now(), Duration::from_millis(20));
            let never = std::future::pending::<()>();
            assert_eq!(within(&mut alarm, start + limit, never).await, None);
            assert!(start.elapsed() >= limit);
        }
        let end = Instant::now() + Duration::from_secs(60);
        assert_eq!(within(&mut alarm, end, async { 7 }).await, Some(7));
    }
}
