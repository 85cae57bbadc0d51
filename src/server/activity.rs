//! What one connection is waiting for, and since when: the facts from which a deadline follows.
//!
//! Time stands still here: every function is told what time it is, so that the rules can be tested
//! without waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::ServerLimits;

/// A response that is handed over in pieces may take this many times the stall deadline for one
/// piece while the connection as a whole still moves.
const STALLS_PER_PIECE: u32 = 4;

/// Why a connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    /// Nothing came after it was accepted.
    FirstByte,
    /// The header of a request did not end.
    Header,
    /// No further request came. Ordinary, unlike the others.
    Idle,
    /// The client takes no more of its response.
    WriteStall,
}

impl Missed {
    /// The label in the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Header => "header",
            Self::Idle => "idle",
            Self::WriteStall => "write_stall",
        }
    }
}

#[derive(Debug)]
struct State {
    waiting_for: WaitingFor,
    since: Instant,
    http2: bool,
    requests: usize,
    /// Since when the socket takes no byte of what we want to write.
    write_blocked_since: Option<Instant>,
    last_written: Instant,
    /// Responses whose last piece was handed over and that were not asked for the next one since.
    handed_over: BTreeMap<u64, Instant>,
    next_response: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitingFor {
    FirstByte,
    RestOfHeader,
    NextRequest,
    /// A request is in the handler's hands; its body has a deadline of its own.
    Us,
}

/// The shared record of one connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

impl Activity {
    pub(super) fn accepted(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            waiting_for: WaitingFor::FirstByte,
            since: now,
            http2: false,
            requests: 0,
            write_blocked_since: None,
            last_written: now,
            handed_over: BTreeMap::new(),
            next_response: 0,
        })))
    }

    pub(super) fn bytes_read(&self, now: Instant) {
        let mut state = self.lock();
        let begins_header = match state.waiting_for {
            WaitingFor::FirstByte => true,
            // On HTTP/2 bytes between requests are pings and window updates, not a header.
            WaitingFor::NextRequest => !state.http2,
            WaitingFor::RestOfHeader | WaitingFor::Us => false,
        };
        if begins_header {
            state.waiting_for = WaitingFor::RestOfHeader;
            state.since = now;
        }
    }

    pub(super) fn bytes_written(&self, now: Instant) {
        let mut state = self.lock();
        state.write_blocked_since = None;
        state.last_written = now;
    }

    pub(super) fn write_blocked(&self, now: Instant) {
        self.lock().write_blocked_since.get_or_insert(now);
    }

    /// A request's header is complete. The request lasts until the guard is dropped.
    pub(super) fn request_began(&self, http2: bool) -> RequestGuard {
        let mut state = self.lock();
        state.http2 = http2;
        state.requests += 1;
        state.waiting_for = WaitingFor::Us;
        let response = state.next_response;
        state.next_response += 1;
        RequestGuard { activity: self.clone(), response }
    }

    /// The deadline that has passed by now, if any.
    pub(super) fn missed(&self, now: Instant, limits: &ServerLimits) -> Option<Missed> {
        let state = self.lock();
        let after = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if state.write_blocked_since.is_some_and(|since| after(since, limits.write_stall)) {
            return Some(Missed::WriteStall);
        }
        let still = after(state.last_written, limits.write_stall);
        for since in state.handed_over.values() {
            if (still && after(*since, limits.write_stall))
                || after(*since, limits.write_stall * STALLS_PER_PIECE)
            {
                return Some(Missed::WriteStall);
            }
        }
        let (limit, missed) = match state.waiting_for {
            WaitingFor::FirstByte => (limits.first_byte_timeout, Missed::FirstByte),
            WaitingFor::RestOfHeader => (limits.header_timeout, Missed::Header),
            WaitingFor::NextRequest => (limits.idle_timeout, Missed::Idle),
            WaitingFor::Us => return None,
        };
        after(state.since, limit).then_some(missed)
    }

    /// Each critical section is a few assignments; the state stays whole when a holder panics.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight, from its header to the end of its response.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Activity,
    response: u64,
}

impl RequestGuard {
    /// A piece of the response went to the connection; the client's side of it is next.
    pub(super) fn handed_over(&self, now: Instant) {
        self.activity.lock().handed_over.insert(self.response, now);
    }

    /// The connection asks for the next piece; ours is next.
    pub(super) fn asked(&self) {
        self.activity.lock().handed_over.remove(&self.response);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.handed_over.remove(&self.response);
        state.requests = state.requests.saturating_sub(1);
        if state.requests == 0 {
            state.waiting_for = WaitingFor::NextRequest;
            state.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::config::Limits;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ServerLimits {
        ServerLimits::registry(&Limits::default())
    }

    #[test]
    fn a_silent_connection_misses_its_first_byte() {
        let start = Instant::now();
        let activity = Activity::accepted(start);
        assert_eq!(activity.missed(start + 9 * SECOND, &limits()), None);
        assert_eq!(activity.missed(start + 10 * SECOND, &limits()), Some(Missed::FirstByte));
    }

    #[test]
    fn a_header_that_drips_is_cut_however_often_it_drips() {
        let start = Instant::now();
        let activity = Activity::accepted(start);
        for second in 1..=11 {
            activity.bytes_read(start + second * SECOND);
        }
        assert_eq!(activity.missed(start + 11 * SECOND, &limits()), Some(Missed::Header));
    }

    #[test]
    fn a_request_in_our_hands_has_no_read_deadline() {
        let start = Instant::now();
        let activity = Activity::accepted(start);
        activity.bytes_read(start);
        let _request = activity.request_began(false);
        assert_eq!(activity.missed(start + 600 * SECOND, &limits()), None);
    }

    #[test]
    fn pings_keep_no_idle_http2_connection_alive_and_are_no_header() {
        let activity = Activity::accepted(Instant::now());
        drop(activity.request_began(true));
        let idle = Instant::now();
        for second in 1..=70 {
            activity.bytes_read(idle + second * SECOND);
        }
        assert_eq!(activity.missed(idle + 70 * SECOND, &limits()), None);
        assert_eq!(activity.missed(idle + 76 * SECOND, &limits()), Some(Missed::Idle));
    }

    #[test]
    fn a_client_that_never_reads_is_cut() {
        let start = Instant::now();
        let activity = Activity::accepted(start);
        let request = activity.request_began(false);
        activity.write_blocked(start);
        activity.write_blocked(start + 20 * SECOND);
        assert_eq!(activity.missed(start + 30 * SECOND, &limits()), Some(Missed::WriteStall));
        activity.bytes_written(start + 30 * SECOND);
        assert_eq!(activity.missed(start + 31 * SECOND, &limits()), None);
        drop(request);
    }

    #[test]
    fn an_http2_stream_without_window_is_cut() {
        let start = Instant::now();
        let activity = Activity::accepted(start);
        let request = activity.request_began(true);
        request.handed_over(start);
        assert_eq!(activity.missed(start + 30 * SECOND, &limits()), Some(Missed::WriteStall));
        activity.bytes_written(start + 29 * SECOND);
        assert_eq!(activity.missed(start + 30 * SECOND, &limits()), None);
        request.asked();
        assert_eq!(activity.missed(start + 600 * SECOND, &limits()), None);
    }
}
