//! What is wanted of a row, and whether it is so.

use serde::Serialize;

use super::{
    series::{median, quantile},
    unit::Unit,
};

/// How a figure is held against a number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bound {
    /// Whether a figure is within it. One that is no number is not, nor is what is divided by nothing.
    fn holds(self, measured: f64) -> bool {
        measured.is_finite()
            && match self {
                Self::AtLeast(least) => measured >= least,
                Self::AtMost(most) => measured <= most,
            }
    }
}

/// One thing that is wanted of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Target {
    /// Its name in the code and in the JSON.
    pub(super) key: &'static str,
    /// What is measured, for the page.
    pub(super) words: &'static str,
    pub(super) bound: Bound,
    pub(super) unit: Unit,
}

impl Target {
    /// A ratio that is to be this or more.
    pub(super) const fn ratio(key: &'static str, least: f64, words: &'static str) -> Self {
        Self { key, words, bound: Bound::AtLeast(least), unit: Unit::Times }
    }

    /// A ratio that is to be this or less.
    pub(super) const fn ratio_at_most(key: &'static str, most: f64, words: &'static str) -> Self {
        Self { key, words, bound: Bound::AtMost(most), unit: Unit::Times }
    }

    /// A figure that is to be this or more.
    pub(super) const fn least(
        key: &'static str,
        least: f64,
        unit: Unit,
        words: &'static str,
    ) -> Self {
        Self { key, words, bound: Bound::AtLeast(least), unit }
    }

    /// A figure that is to be this or less.
    pub(super) const fn most(
        key: &'static str,
        most: f64,
        unit: Unit,
        words: &'static str,
    ) -> Self {
        Self { key, words, bound: Bound::AtMost(most), unit }
    }

    /// The bound, for the page.
    pub(super) fn wanted(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!("≥ {}", self.unit.show(least)),
            Bound::AtMost(most) => format!("≤ {}", self.unit.show(most)),
        }
    }
}

/// A target, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Judged {
    pub(super) key: &'static str,
    pub(super) words: &'static str,
    pub(super) wanted: String,
    /// Nothing unless it was measured in this run.
    pub(super) measured: Option<f64>,
    /// The same with its unit.
    pub(super) shown: Option<String>,
    /// Whether it is as wanted; nothing where it was not measured, or not at the size that the target speaks of.
    pub(super) met: Option<bool>,
}

impl Judged {
    /// Before anything was measured.
    pub(super) fn not_yet(target: &Target) -> Self {
        let Target { key, words, .. } = *target;
        Self { key, words, wanted: target.wanted(), measured: None, shown: None, met: None }
    }

    /// With what was measured: the median of all rounds, shown with the least and the most of them.
    pub(super) fn of(target: &Target, rounds: &[f64]) -> Self {
        let measured = median(rounds);
        let (least, most) = (quantile(rounds, 0.0), quantile(rounds, 1.0));
        let mut shown = target.unit.show(measured);
        if rounds.len() > 1 {
            shown = format!("{shown} ({}–{})", target.unit.show(least), target.unit.show(most));
        }
        let met = Some(target.bound.holds(measured));
        Self { measured: Some(measured), shown: Some(shown), met, ..Self::not_yet(target) }
    }

    /// The judgement in a word.
    pub(super) fn word(&self) -> &'static str {
        match (self.met, self.measured) {
            (Some(true), _) => "met",
            (Some(false), _) => "**missed**",
            (None, Some(_)) => "not judged",
            (None, None) => "not measured",
        }
    }

    /// All of it in a line.
    pub(super) fn line(&self) -> String {
        let shown = self.shown.as_deref().unwrap_or("–");
        format!("{}: {shown}, wanted {}: {}", self.words, self.wanted, self.word().replace('*', ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_at_its_number_and_of_nothing_that_is_none() {
        assert!(Bound::AtLeast(1.0).holds(1.0) && !Bound::AtLeast(1.0).holds(0.999));
        assert!(Bound::AtMost(250.0).holds(250.0) && !Bound::AtMost(250.0).holds(250.1));
        assert!(!Bound::AtLeast(0.0).holds(f64::NAN) && !Bound::AtMost(9.0).holds(f64::NAN));
        assert!(!Bound::AtLeast(3.0).holds(f64::INFINITY));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let target = Target::ratio("nginx", 0.9, "bytes per second, of nginx");
        let open = Judged::not_yet(&target);
        assert_eq!((open.wanted.as_str(), open.measured, open.met), ("≥ 0.90 ×", None, None));
        assert_eq!(Judged::of(&target, &[0.95]).met, Some(true));
        let missed = Judged::of(&target, &[0.5, 0.4, 0.95]);
        assert_eq!(
            (missed.shown.as_deref(), missed.met),
            (Some("0.50 × (0.40 ×–0.95 ×)"), Some(false))
        );
    }
}
