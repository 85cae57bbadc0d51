//! Takes down what happens while a run goes on.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    buckets::{Bucket, Buckets, Latencies, add_latency, latencies},
    picture::{Latency, LeaderChange, Mark, Spell, Timeline, Track},
    request::{Outcome, RequestKind},
    sent::Requests,
};
use crate::scenario::milliseconds;

/// Of each list; beyond that nobody looks at single ones.
const LISTED_MAX: usize = 2_000;
/// So long without an acknowledged write is a gap.
const GAP_MIN: Duration = Duration::from_secs(1);

/// One for a run, in its ledger; its memory is bounded, however long the run.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tracks: BTreeMap<String, Recorded>,
    leaders: Vec<LeaderChange>,
    gaps: Vec<Spell>,
    marks: Vec<Mark>,
    last_write: Option<Instant>,
    requests: Requests,
    /// When something was last committed, or could be again; `None` while nothing is due.
    committed: Option<Instant>,
    /// Whether something was due at any time.
    was_due: bool,
    /// For each replica, when the last request to it began that it should have committed since, and did not.
    not_written: BTreeMap<String, Instant>,
    silences: Vec<Silence>,
}

/// A time in which nothing was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Since the start.
    pub(crate) start: Duration,
    /// Since the start.
    pub(crate) end: Duration,
    /// For each replica that was asked to commit something and did not, when it was last asked: since the start.
    pub(crate) asked: BTreeMap<String, Duration>,
}

#[derive(Debug, Default)]
struct Recorded {
    buckets: Buckets,
    kinds: BTreeMap<RequestKind, Latencies>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), inner: Mutex::default() }
    }
}

impl Recorder {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// A request to a replica has ended now.
    pub(crate) fn request(
        &self,
        replica: &str,
        kind: RequestKind,
        outcome: Outcome,
        began: Instant,
    ) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(began);
        let mut inner = self.inner();
        inner.requests.ended(outcome);
        if !inner.tracks.contains_key(replica) {
            inner.tracks.insert(replica.to_owned(), Recorded::default());
        }
        let Some(track) = inner.tracks.get_mut(replica) else { return };
        track.buckets.add(self.since_start(now), outcome, latency);
        if outcome == Outcome::Acknowledged {
            let known = match track.kinds.entry(kind) {
                Entry::Occupied(known) => Some(known.into_mut()),
                // The bounds are in order, so there always is one.
                Entry::Vacant(new) => latencies().ok().map(|empty| new.insert(empty)),
            };
            if let Some(known) = known {
                add_latency(known, latency);
            }
        }
    }

    /// A write was acknowledged now: a gap may be over.
    pub(crate) fn wrote(&self) {
        let now = Instant::now();
        let mut inner = self.inner();
        if let Some(last) = inner.last_write.replace(now) {
            self.gap(&mut inner, last, now);
        }
    }

    /// The load begins or ends: nobody writes in between, and that is no gap.
    pub(crate) fn writing_ends(&self) {
        let mut inner = self.inner();
        if let Some(last) = inner.last_write.take() {
            self.gap(&mut inner, last, Instant::now());
        }
    }

    /// A request is about to be sent.
    pub(super) fn begun(&self, bytes: u64) {
        let mut inner = self.inner();
        inner.requests.sent += 1;
        inner.requests.bytes += bytes;
    }

    /// A tag that has a history was changed, or may have been.
    pub(super) fn changed_a_tag(&self) {
        self.inner().requests.tag_changes += 1;
    }

    /// How all requests have ended so far.
    pub(crate) fn requests(&self) -> Requests {
        self.inner().requests
    }

    /// A replica did not do what only a majority can do.
    pub(super) fn not_written(&self, replica: &str, began: Instant) {
        let mut inner = self.inner();
        if inner.committed.is_some_and(|committed| began > committed) {
            inner.not_written.insert(replica.to_owned(), began);
        }
    }

    /// A majority has committed something now.
    pub(crate) fn committed(&self) {
        if self.inner().committed.is_some() {
            self.silence_ends(Some(Instant::now()));
        }
    }

    /// From now on a majority is there, and clients want it to commit something all the time.
    pub(crate) fn due(&self) {
        self.inner().was_due = true;
        self.silence_ends(Some(Instant::now()));
    }

    /// Whether there ever was a time in which a majority had to commit something.
    pub(crate) fn was_due(&self) -> bool {
        self.inner().was_due
    }

    /// From now on nothing has to be committed, until [`Self::due`].
    pub(crate) fn nothing_due(&self) {
        self.silence_ends(None);
    }

    fn silence_ends(&self, next: Option<Instant>) {
        let now = Instant::now();
        let mut inner = self.inner();
        let asked = std::mem::take(&mut inner.not_written);
        let Some(last) = std::mem::replace(&mut inner.committed, next) else { return };
        if now.saturating_duration_since(last) > GAP_MIN && inner.silences.len() < LISTED_MAX {
            let asked =
                asked.into_iter().map(|(name, began)| (name, self.since_start(began))).collect();
            let (start, end) = (self.since_start(last), self.since_start(now));
            inner.silences.push(Silence { start, end, asked });
        }
    }

    /// The longer times so far in which nothing was committed although a majority was there.
    pub(crate) fn silences(&self) -> Vec<Silence> {
        self.inner().silences.clone()
    }

    fn gap(&self, inner: &mut Inner, from: Instant, to: Instant) {
        if to.saturating_duration_since(from) > GAP_MIN && inner.gaps.len() < LISTED_MAX {
            inner.gaps.push(Spell {
                start_ms: milliseconds(self.since_start(from)),
                end_ms: milliseconds(self.since_start(to)),
            });
        }
    }

    /// Who is said to lead now.
    pub(crate) fn leader(&self, name: Option<&str>, term: u64) {
        let at_ms = milliseconds(self.start.elapsed());
        let mut inner = self.inner();
        let last = inner.leaders.last();
        let same = match last {
            Some(last) => last.name.as_deref() == name && (name.is_none() || last.term == term),
            None => name.is_none(),
        };
        if !same && inner.leaders.len() < LISTED_MAX {
            inner.leaders.push(LeaderChange { at_ms, name: name.map(str::to_owned), term });
        }
    }

    /// A promise was broken, as far as is known now.
    pub(crate) fn mark(&self, what: &str) {
        let at_ms = milliseconds(self.start.elapsed());
        let mut inner = self.inner();
        if inner.marks.len() < LISTED_MAX {
            inner.marks.push(Mark { at_ms, what: what.to_owned() });
        }
    }

    /// Everything so far; the faults are not this one's to know.
    pub(crate) fn timeline(&self) -> Timeline {
        let length_ms = milliseconds(self.start.elapsed());
        let inner = self.inner();
        let mut widened: Vec<(&String, &Recorded, Buckets)> = inner
            .tracks
            .iter()
            .map(|(name, recorded)| (name, recorded, recorded.buckets.clone()))
            .collect();
        let width = widened.iter().map(|(_, _, buckets)| buckets.width()).max();
        let width = width.unwrap_or_else(|| Buckets::default().width());
        for (_, _, buckets) in &mut widened {
            buckets.widen_to(width);
        }
        let count = widened.iter().map(|(_, _, buckets)| buckets.all().len()).max().unwrap_or(0);
        let tracks = widened.iter().map(|(name, recorded, buckets)| Track {
            latencies: recorded.kinds.iter().map(|(kind, all)| summary(*kind, all)).collect(),
            ..track(name, buckets.all(), count)
        });
        Timeline {
            length_ms,
            bucket_ms: milliseconds(width),
            tracks: tracks.collect(),
            bands: Vec::new(),
            leaders: inner.leaders.clone(),
            gaps: inner.gaps.clone(),
            marks: inner.marks.clone(),
        }
    }
}

fn track(name: &str, buckets: &[Bucket], count: usize) -> Track {
    let column = |of: fn(&Bucket) -> u32| {
        let mut column: Vec<u32> = buckets.iter().map(of).collect();
        column.resize(count, 0);
        column
    };
    let quantiles = |quantile: f64| {
        let of = |bucket: &Bucket| {
            bucket.latencies.as_ref().map_or(0, |all| all.value_at_quantile(quantile))
        };
        let mut column: Vec<u64> = buckets.iter().map(of).collect();
        column.resize(count, 0);
        column
    };
    Track {
        name: name.to_owned(),
        acknowledged: column(|bucket| bucket.acknowledged),
        refused: column(|bucket| bucket.refused),
        unknown: column(|bucket| bucket.unknown),
        failed: column(|bucket| bucket.failed),
        p50_us: quantiles(0.5),
        p99_us: quantiles(0.99),
        latencies: Vec::new(),
    }
}

fn summary(operation: RequestKind, all: &Latencies) -> Latency {
    Latency {
        operation,
        count: all.len(),
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
        max_us: all.max(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::sent::Sent, *};

    #[test]
    fn replicas_share_one_scale() {
        let recorder = Recorder::default();
        let now = Instant::now();
        recorder.request("a", RequestKind::Pull, Outcome::Acknowledged, now);
        recorder.request("b", RequestKind::PushBlob, Outcome::Unknown, now);
        recorder.request("b", RequestKind::PushBlob, Outcome::Refused, now);
        let timeline = recorder.timeline();
        let names: Vec<&str> = timeline.tracks.iter().map(|track| track.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        for track in &timeline.tracks {
            assert_eq!(track.acknowledged.len(), timeline.tracks[0].p99_us.len());
        }
        assert_eq!(timeline.tracks[0].latencies.len(), 1);
        assert!(timeline.tracks[1].latencies.is_empty(), "only what was acknowledged");
        assert_eq!(timeline.tracks[1].unknown.iter().sum::<u32>(), 1);
    }

    #[test]
    fn only_a_change_of_the_leader_is_listed() {
        let recorder = Recorder::default();
        recorder.leader(None, 0);
        for (name, term) in [(Some("a"), 1), (Some("a"), 1), (None, 1), (None, 2), (Some("a"), 3)] {
            recorder.leader(name, term);
        }
        let seen: Vec<(Option<String>, u64)> = recorder
            .timeline()
            .leaders
            .into_iter()
            .map(|change| (change.name, change.term))
            .collect();
        let a = Some("a".to_owned());
        assert_eq!(seen, [(a.clone(), 1), (None, 1), (a, 3)]);
    }

    #[test]
    fn a_long_time_without_a_write_is_a_gap_and_a_load_that_rests_is_none() {
        let recorder = Recorder::default();
        let Some(past) = Instant::now().checked_sub(Duration::from_secs(5)) else { return };
        recorder.inner().last_write = Some(past);
        recorder.wrote();
        assert_eq!(recorder.timeline().gaps.len(), 1);
        recorder.writing_ends();
        recorder.wrote();
        assert_eq!(recorder.timeline().gaps.len(), 1);
    }

    #[test]
    fn who_was_asked_in_a_silence_is_known_and_one_that_is_excused_is_none() {
        let recorder = Arc::new(Recorder::default());
        let long_ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        let (Some(last), Some(asked)) = (long_ago(9), long_ago(3)) else { return };
        recorder.inner().committed = Some(last);
        recorder.not_written("a", asked);
        // What was asked for before the last success is no news.
        if let Some(before) = long_ago(20) {
            recorder.not_written("b", before);
        }
        recorder.committed();
        let silences = recorder.silences();
        assert_eq!(silences.len(), 1);
        let names: Vec<&String> = silences[0].asked.keys().collect();
        assert_eq!(names, ["a"]);
        recorder.nothing_due();
        recorder.not_written("a", Instant::now());
        recorder.committed();
        assert!(!recorder.was_due(), "nobody has said that anything was");
        recorder.due();
        assert!(recorder.was_due());
        assert_eq!(recorder.silences().len(), 1);
    }

    #[test]
    fn a_request_that_nobody_waits_for_any_more_is_unknown() {
        let recorder = Arc::new(Recorder::default());
        drop(Sent::begin(&recorder, "a", RequestKind::PushManifest, 7));
        let answered = Sent::begin(&recorder, "a", RequestKind::Pull, 0);
        answered.end(Outcome::Acknowledged, Some(200));
        let wanted =
            Requests { sent: 2, acknowledged: 1, unknown: 1, bytes: 7, ..Requests::default() };
        assert_eq!(recorder.requests(), wanted);
    }
}
