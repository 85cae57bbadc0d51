//! Requests by time, in a bounded number of buckets that widen as the run goes on.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::request::Outcome;

/// Even, so that two and two become one.
const BUCKETS_MAX: usize = 256;
/// The width at the start.
const WIDTH: Duration = Duration::from_millis(250);
/// The longest latency that is told apart, in microseconds; longer ones count as this.
const LATENCY_MAX_US: u64 = 120_000_000;
/// Two digits: a latency is right to a percent.
const DIGITS: u8 = 2;

/// Latencies in microseconds.
pub(super) type Latencies = Histogram<u32>;

/// An empty histogram.
pub(super) fn latencies() -> Result<Latencies> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS)?)
}

/// Adds a latency.
pub(super) fn add_latency(latencies: &mut Latencies, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// What ended within one span of time.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) acknowledged: u32,
    pub(super) refused: u32,
    pub(super) unknown: u32,
    pub(super) failed: u32,
    /// Of what was acknowledged. None yet, while there is nothing: most buckets of a dead replica stay empty.
    pub(super) latencies: Option<Latencies>,
}

/// The buckets of one replica, from the start of the run on.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    width: Duration,
    buckets: Vec<Bucket>,
}

impl Bucket {
    const EMPTY: Self =
        Self { acknowledged: 0, refused: 0, unknown: 0, failed: 0, latencies: None };

    fn add(&mut self, other: Self) {
        self.acknowledged = self.acknowledged.saturating_add(other.acknowledged);
        self.refused = self.refused.saturating_add(other.refused);
        self.unknown = self.unknown.saturating_add(other.unknown);
        self.failed = self.failed.saturating_add(other.failed);
        match (&mut self.latencies, other.latencies) {
            // Both have the same bounds, so this cannot fail.
            (Some(mine), Some(theirs)) => drop(mine.add(&theirs)),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self { width: WIDTH, buckets: Vec::new() }
    }
}

impl Buckets {
    /// A request ended at `at` after the start of the run.
    pub(super) fn add(&mut self, at: Duration, outcome: Outcome, latency: Duration) {
        while self.index(at) >= BUCKETS_MAX {
            self.widen();
        }
        let index = self.index(at);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, Bucket::EMPTY);
        }
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let count = match outcome {
            Outcome::Acknowledged => &mut bucket.acknowledged,
            Outcome::Refused => &mut bucket.refused,
            Outcome::Unknown => &mut bucket.unknown,
            Outcome::Failed => &mut bucket.failed,
        };
        *count = count.saturating_add(1);
        if outcome == Outcome::Acknowledged {
            if bucket.latencies.is_none() {
                bucket.latencies = latencies().ok();
            }
            if let Some(latencies) = &mut bucket.latencies {
                add_latency(latencies, latency);
            }
        }
    }

    /// How much time a bucket stands for.
    pub(super) fn width(&self) -> Duration {
        self.width
    }

    /// Makes them at least so wide, so that several replicas can be shown by one scale.
    pub(super) fn widen_to(&mut self, width: Duration) {
        while self.width < width {
            self.widen();
        }
    }

    /// All of them, up to the last that has something.
    pub(super) fn all(&self) -> &[Bucket] {
        &self.buckets
    }

    fn index(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.width.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    fn widen(&mut self) {
        self.width *= 2;
        let mut wide: Vec<Bucket> = Vec::with_capacity(BUCKETS_MAX / 2);
        for (index, bucket) in std::mem::take(&mut self.buckets).into_iter().enumerate() {
            match wide.last_mut() {
                Some(last) if index % 2 == 1 => last.add(bucket),
                _ => wide.push(bucket),
            }
        }
        self.buckets = wide;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_hours_needs_no_more_buckets_than_one_of_a_minute() {
        let mut buckets = Buckets::default();
        let (hours, step) = (Duration::from_secs(5 * 3_600), Duration::from_secs(7));
        let (mut at, mut added) = (Duration::ZERO, 0);
        while at < hours {
            buckets.add(at, Outcome::Acknowledged, Duration::from_millis(3));
            buckets.add(at, Outcome::Unknown, Duration::from_secs(8));
            added += 1;
            at += step;
        }
        assert!(buckets.all().len() <= BUCKETS_MAX);
        assert!(buckets.width() * u32::try_from(BUCKETS_MAX).unwrap_or(0) >= hours);
        let sum = |of: fn(&Bucket) -> u32| buckets.all().iter().map(of).sum::<u32>();
        assert_eq!(sum(|bucket| bucket.acknowledged), added);
        assert_eq!(sum(|bucket| bucket.unknown), added);
        let measured: u64 = buckets
            .all()
            .iter()
            .filter_map(|bucket| bucket.latencies.as_ref())
            .map(Histogram::len)
            .sum();
        assert_eq!(measured, u64::from(added), "widening loses no latency");
    }

    #[test]
    fn what_ends_late_is_in_a_late_bucket() {
        let mut buckets = Buckets::default();
        buckets.add(Duration::from_millis(10), Outcome::Refused, Duration::ZERO);
        buckets.add(Duration::from_millis(1_010), Outcome::Failed, Duration::ZERO);
        let seen: Vec<(u32, u32)> =
            buckets.all().iter().map(|bucket| (bucket.refused, bucket.failed)).collect();
        assert_eq!(seen, [(1, 0), (0, 0), (0, 0), (0, 0), (0, 1)]);
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_counted() {
        let mut some = latencies().expect("bounds that are in order");
        add_latency(&mut some, Duration::from_secs(100_000));
        add_latency(&mut some, Duration::ZERO);
        assert_eq!(some.len(), 2);
    }
}
