//! The figures of one server over all rounds.

use serde::Serialize;

use crate::load::Figures;

/// One measurement of a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measurement {
    /// What was done, such as `4 connections`.
    pub(super) case: String,
    /// Its round, from 1 on.
    pub(super) round: usize,
    /// What it came to; the server's name is in it.
    pub(super) figures: Figures,
}

/// One server in one case, in all rounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) case: String,
    pub(super) target: String,
    /// In the order of the rounds.
    pub(super) figures: Vec<Figures>,
}

impl Series {
    /// What belongs to this case and server; nothing, if none does.
    pub(super) fn of(measurements: &[Measurement], case: &str, target: &str) -> Option<Self> {
        let mut rounds: Vec<&Measurement> = measurements
            .iter()
            .filter(|one| one.case == case && one.figures.target == target)
            .collect();
        rounds.sort_by_key(|one| one.round);
        let figures: Vec<Figures> = rounds.iter().map(|one| one.figures.clone()).collect();
        let (case, target) = (case.to_owned(), target.to_owned());
        (!figures.is_empty()).then_some(Self { case, target, figures })
    }

    /// A figure in each round.
    pub(super) fn each(&self, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
        self.figures.iter().map(figure).collect()
    }

    /// The median of a figure over the rounds.
    pub(super) fn median(&self, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(&self.each(figure))
    }

    /// This one's figure as a multiple of another one's, in each round: what was measured right after one another is the
    /// same machine.
    pub(super) fn over(&self, other: &Self, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
        let pairs = self.figures.iter().zip(&other.figures);
        pairs.map(|(one, other)| figure(one) / figure(other)).collect()
    }
}

/// Bytes of bodies, in millions per second.
pub(super) fn megabytes_per_second(figures: &Figures) -> f64 {
    figures.bytes_per_second / 1e6
}

/// Operations per second.
pub(super) fn per_second(figures: &Figures) -> f64 {
    figures.operations_per_second
}

/// Half of the operations took no longer, in milliseconds.
pub(super) fn p50_ms(figures: &Figures) -> f64 {
    figures.latency.p50_us as f64 / 1e3
}

/// 99 of 100 operations took no longer, in milliseconds.
pub(super) fn p99_ms(figures: &Figures) -> f64 {
    figures.latency.p99_us as f64 / 1e3
}

/// Processor time of the servers for 10⁹ bytes, in seconds; no number where it is not known.
pub(super) fn cpu_per_gigabyte(figures: &Figures) -> f64 {
    figures.server_cpu_seconds_per_gigabyte.unwrap_or(f64::NAN)
}

/// The middle of them, between the two in the middle of an even number; no number of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    match sorted.len() % 2 {
        0 => (at(middle.wrapping_sub(1)) + at(middle)) / 2.0,
        _ => at(middle),
    }
}

/// The value that this share of them does not exceed, by the nearest rank; no number of none.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A measurement with this many operations and millions of bytes per second.
    pub(in crate::bench) fn measurement(target: &str, round: usize, rate: f64) -> Measurement {
        let figures = Figures {
            target: target.to_owned(),
            operations_per_second: rate,
            bytes_per_second: rate * 1e6,
            ..Figures::default()
        };
        Measurement { case: "case".to_owned(), round, figures }
    }

    #[test]
    fn a_ratio_is_that_of_rounds_which_belong_together() {
        // The machine is half as fast in the third round, for both.
        let all: Vec<Measurement> = [("a", 2, 90.0), ("b", 1, 100.0), ("a", 1, 80.0)]
            .into_iter()
            .chain([("b", 3, 50.0), ("b", 2, 100.0), ("a", 3, 45.0)])
            .map(|(target, round, rate)| measurement(target, round, rate))
            .collect();
        let series = |target| Series::of(&all, "case", target).unwrap();
        assert_eq!(series("a").each(per_second), [80.0, 90.0, 45.0]);
        assert_eq!(series("a").over(&series("b"), megabytes_per_second), [0.8, 0.9, 0.9]);
        assert!((series("a").median(per_second) - 80.0).abs() < 1e-9);
        assert!(Series::of(&all, "other case", "a").is_none());
    }

    #[test]
    fn medians_and_quantiles_of_few_are_what_one_would_say() {
        assert!(median(&[]).is_nan() && quantile(&[], 0.5).is_nan());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0]) - 1.5).abs() < 1e-9);
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        assert!((quantile(&twenty, 0.99) - 20.0).abs() < 1e-9);
        assert!((quantile(&twenty, 0.5) - 10.0).abs() < 1e-9);
    }
}
