//! How long something takes, as a mean over the last seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::type_config::NodeId;

/// The mean is of what happened in the last one to two of these.
const WINDOW: Duration = Duration::from_secs(5);
/// Fewer measurements than this say nothing.
const SAMPLES_MIN: u32 = 3;

/// Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Latency(Arc<Mutex<Windows>>);

#[derive(Default)]
struct Windows {
    began: Option<Instant>,
    current: Tally,
    previous: Tally,
}

#[derive(Default, Clone, Copy)]
struct Tally {
    count: u32,
    total: Duration,
}

impl Latency {
    pub(crate) fn record(&self, took: Duration) {
        self.record_at(Instant::now(), took);
    }

    /// `None` while too little was measured lately.
    pub(crate) fn mean(&self) -> Option<Duration> {
        self.mean_at(Instant::now())
    }

    fn record_at(&self, now: Instant, took: Duration) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.roll(now);
        windows.current.count = windows.current.count.saturating_add(1);
        windows.current.total = windows.current.total.saturating_add(took);
    }

    fn mean_at(&self, now: Instant) -> Option<Duration> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.roll(now);
        let count = windows.current.count.saturating_add(windows.previous.count);
        let total = windows.current.total.saturating_add(windows.previous.total);
        (count >= SAMPLES_MIN).then(|| total / count)
    }
}

impl Windows {
    fn roll(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        if age < WINDOW {
            return;
        }
        self.previous = if age < WINDOW * 2 { self.current } else { Tally::default() };
        self.current = Tally::default();
        self.began = Some(now);
    }
}

/// How long each other replica takes to confirm entries: the way there and back, and its fsync.
#[derive(Clone, Default)]
pub(crate) struct PeerLatencies(Arc<Mutex<BTreeMap<NodeId, Latency>>>);

impl PeerLatencies {
    pub(crate) fn of(&self, peer: NodeId) -> Latency {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry(peer).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let latency = Latency::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let slow = Duration::from_millis(500);
        for second in 0..2 {
            latency.record_at(at(second), slow);
        }
        assert_eq!(latency.mean_at(at(2)), None, "two say nothing");
        latency.record_at(at(2), slow);
        assert_eq!(latency.mean_at(at(2)), Some(slow));
        assert_eq!(latency.mean_at(at(6)), Some(slow));
        for second in 7..10 {
            latency.record_at(at(second), Duration::ZERO);
        }
        assert_eq!(latency.mean_at(at(10)), Some(slow / 2));
        for second in 12..15 {
            latency.record_at(at(second), Duration::ZERO);
        }
        assert_eq!(latency.mean_at(at(15)), Some(Duration::ZERO));
        assert_eq!(latency.mean_at(at(60)), None, "what was long ago is forgotten");
    }
}
