//! What clients have measured.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{connection::Traffic, failure::Failure, options::Kind};

/// The longest latency that is told apart, in microseconds: an hour. Longer ones count as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Three digits: a latency is right to a thousandth.
const DIGITS: u8 = 3;
/// Where the curve of a distribution has its points.
const CURVE: [f64; 14] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];

/// Times that were measured, in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS)?))
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn add(&mut self, other: &Self) {
        // All have the same bounds, so this cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// What is worth telling of them.
    pub(super) fn quantiles(&self) -> Quantiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Quantiles {
            count: self.0.len(),
            mean_us: self.0.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: self.0.max(),
            curve: CURVE.iter().map(|quantile| (*quantile, at(*quantile))).collect(),
        }
    }
}

/// A distribution of times, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// How many there are.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Half of them are no longer.
    pub p50_us: u64,
    /// Nine of ten are no longer.
    pub p90_us: u64,
    /// 99 of 100 are no longer.
    pub p99_us: u64,
    /// 999 of 1,000 are no longer.
    pub p99_9_us: u64,
    /// The longest.
    pub max_us: u64,
    /// Points of the distribution: a quantile between 0 and 1, and the time there.
    pub curve: Vec<(f64, u64)>,
}

/// Of one kind of operation.
#[derive(Clone, Debug)]
pub(super) struct KindTally {
    /// Until the end of operations that succeeded, from when they were due (open loop) or sent (closed loop).
    /// Those that were due and never sent count with the time that they had waited.
    pub(super) latency: Times,
    /// The same from when they were sent.
    pub(super) service: Times,
    /// Operations that were sent and have ended, well or not.
    pub(super) ended: u64,
    /// Those of them that succeeded before the measurement's time was over.
    pub(super) in_time: u64,
    /// Operations that were due, and for which no client was free before the time was over.
    pub(super) unsent: u64,
    pub(super) failures: BTreeMap<Failure, u64>,
}

impl KindTally {
    fn new() -> Result<Self> {
        Ok(Self {
            latency: Times::new()?,
            service: Times::new()?,
            ended: 0,
            in_time: 0,
            unsent: 0,
            failures: BTreeMap::new(),
        })
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.service.add(&other.service);
        self.ended += other.ended;
        self.in_time += other.in_time;
        self.unsent += other.unsent;
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
    }
}

/// Everything that the clients of one thread have measured.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) kinds: BTreeMap<Kind, KindTally>,
    /// Of each blob of pushed images by itself.
    pub(super) blobs: Times,
    pub(super) traffic: Traffic,
    /// When the last operation ended, after the start.
    pub(super) last: Duration,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) kind: Kind,
    pub(super) latency: Duration,
    pub(super) service: Duration,
    /// When it ended, after the start.
    pub(super) ended: Duration,
    /// It ended before the measurement's time was over.
    pub(super) in_time: bool,
    pub(super) result: Result<(), Failure>,
}

impl Tally {
    pub(super) fn new(kinds: &[Kind]) -> Result<Self> {
        let kinds = kinds.iter().map(|kind| KindTally::new().map(|tally| (*kind, tally)));
        Ok(Self {
            kinds: kinds.collect::<Result<_>>()?,
            blobs: Times::new()?,
            traffic: Traffic::default(),
            last: Duration::ZERO,
        })
    }

    /// An operation has ended.
    pub(super) fn record(&mut self, sample: Sample) {
        let Some(tally) = self.kinds.get_mut(&sample.kind) else { return };
        tally.ended += 1;
        self.last = self.last.max(sample.ended);
        match sample.result {
            Ok(()) => {
                tally.latency.record(sample.latency);
                tally.service.record(sample.service);
                tally.in_time += u64::from(sample.in_time);
            }
            Err(failure) => *tally.failures.entry(failure).or_default() += 1,
        }
    }

    /// An operation was due so long ago, and is not sent any more.
    pub(super) fn unsent(&mut self, kind: Kind, waited: Duration) {
        let Some(tally) = self.kinds.get_mut(&kind) else { return };
        tally.unsent += 1;
        tally.latency.record(waited);
    }

    /// All of both.
    pub(super) fn add(&mut self, other: &Self) {
        self.traffic.add(other.traffic);
        self.blobs.add(&other.blobs);
        self.last = self.last.max(other.last);
        for (kind, tally) in &other.kinds {
            match self.kinds.get_mut(kind) {
                Some(mine) => mine.add(tally),
                None => drop(self.kinds.insert(*kind, tally.clone())),
            }
        }
    }

    /// Of all kinds together.
    pub(super) fn whole(&self) -> Result<KindTally> {
        let mut whole = KindTally::new()?;
        self.kinds.values().for_each(|tally| whole.add(tally));
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(millis: u64, result: Result<(), Failure>) -> Sample {
        let time = Duration::from_millis(millis);
        let (latency, ended) = (2 * time, 3 * time);
        Sample { kind: Kind::Pull, latency, service: time, ended, in_time: true, result }
    }

    #[test]
    fn quantiles_are_right_to_a_thousandth() {
        let mut times = Times::new().unwrap();
        (1..=1_000).for_each(|millis| times.record(Duration::from_millis(millis)));
        let quantiles = times.quantiles();
        let near = |found: u64, millis: u64| found.abs_diff(millis * 1_000) <= millis;
        assert_eq!(quantiles.count, 1_000);
        assert!(near(quantiles.p50_us, 500), "{quantiles:?}");
        assert!(near(quantiles.p90_us, 900), "{quantiles:?}");
        assert!(near(quantiles.p99_us, 990), "{quantiles:?}");
        assert!(near(quantiles.p99_9_us, 999), "{quantiles:?}");
        assert!(near(quantiles.max_us, 1_000), "{quantiles:?}");
        assert!((quantiles.mean_us - 500_500.0).abs() < 500.0, "{quantiles:?}");
        let curve: Vec<u64> = quantiles.curve.iter().map(|(_, time)| *time).collect();
        assert!(curve.is_sorted() && curve.len() == CURVE.len(), "{curve:?}");
        assert_eq!(Times::new().unwrap().quantiles().p99_us, 0, "of none");
    }

    #[test]
    fn times_beyond_the_bounds_are_counted() {
        let mut times = Times::new().unwrap();
        times.record(Duration::ZERO);
        times.record(Duration::from_secs(1_000_000));
        assert_eq!(times.quantiles().count, 2);
    }

    #[test]
    fn failures_are_counted_by_kind_and_have_no_latency() {
        let mut one = Tally::new(&[Kind::Pull, Kind::Push]).unwrap();
        one.record(sample(1, Ok(())));
        one.record(sample(1, Err(Failure::Status(503))));
        let mut two = Tally::new(&[Kind::Pull]).unwrap();
        two.record(sample(1, Err(Failure::Status(503))));
        two.record(sample(1, Err(Failure::Timeout)));
        two.unsent(Kind::Pull, Duration::from_secs(3));
        two.traffic.received = 5;
        one.add(&two);
        let whole = one.whole().unwrap();
        assert_eq!((whole.ended, whole.in_time, whole.unsent), (4, 1, 1));
        let failures: Vec<(Failure, u64)> = whole.failures.into_iter().collect();
        assert_eq!(failures, [(Failure::Timeout, 1), (Failure::Status(503), 2)]);
        // What was never sent has waited all the same.
        assert_eq!(whole.latency.quantiles().count, 2);
        assert!(whole.latency.quantiles().max_us >= 2_990_000);
        assert_eq!(whole.service.quantiles().count, 1);
        assert_eq!((one.traffic.received, one.last), (5, Duration::from_millis(3)));
    }
}
