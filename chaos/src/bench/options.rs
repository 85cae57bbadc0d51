//! What a run of the benchmarks is to be like.

use std::{path::PathBuf, time::Duration};

use super::suite::Suite;

/// More rounds than this are not worth their time.
const ROUNDS_MAX: usize = 100;
/// The longest single measurement.
const TIME_MAX: Duration = Duration::from_secs(600);

/// How large everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As the targets say.
    Whole,
    /// As small as it can be, to see whether everything works. Nothing is judged.
    Quick,
}

/// A run of the benchmarks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// Which set of rows.
    pub suite: Suite,
    /// Which rows, by number or name; none means all of them.
    pub rows: Vec<String>,
    /// How large everything is.
    pub extent: Extent,
    /// How often each target is measured, in turn with the others.
    pub rounds: usize,
    /// How long each measurement takes.
    pub time: Duration,
    /// Folder for `benchmarks.md` and `benchmarks/`, or `benchmarks-part.md` and `benchmarks-part/`.
    pub out: PathBuf,
    /// Whether the folders of the servers stay when they have gone.
    pub keep: bool,
    /// The commit that is measured, if it is known.
    pub commit: Option<String>,
}

impl BenchOptions {
    /// What makes no sense about this, in words.
    pub fn problem(&self) -> Option<String> {
        let wrong = [
            (!(1..=ROUNDS_MAX).contains(&self.rounds), "--rounds is between 1 and 100"),
            (self.time.is_zero() || self.time > TIME_MAX, "--seconds is between 1 and 600"),
        ];
        let wrong = wrong.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why.to_owned());
        wrong.or_else(|| {
            super::rows::chosen(self.suite, &self.rows).err().map(|error| error.to_string())
        })
    }

    /// What starts this run again.
    pub(super) fn command(&self) -> String {
        let mut words = vec!["tercet-chaos bench".to_owned()];
        if self.suite == Suite::Growth {
            words.push("--growth".to_owned());
        }
        if !self.rows.is_empty() {
            words.push(format!("--rows {}", self.rows.join(",")));
        }
        if self.extent == Extent::Quick {
            words.push("--quick".to_owned());
        }
        words.push(format!("--rounds {} --seconds {}", self.rounds, self.time.as_secs_f64()));
        words.join(" ")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run that makes sense.
    pub(in crate::bench) fn options() -> BenchOptions {
        BenchOptions {
            suite: Suite::Peers,
            rows: vec!["1".to_owned(), "storm".to_owned()],
            extent: Extent::Quick,
            rounds: 2,
            time: Duration::from_secs(1),
            out: PathBuf::from("docs/src"),
            keep: false,
            commit: Some("0123456789ab".to_owned()),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(options().problem(), None);
        assert_eq!(
            options().command(),
            "tercet-chaos bench --rows 1,storm --quick --rounds 2 --seconds 1"
        );
        let refused = |options: BenchOptions| assert!(options.problem().is_some(), "{options:?}");
        refused(BenchOptions { rounds: 0, ..options() });
        refused(BenchOptions { time: Duration::ZERO, ..options() });
        refused(BenchOptions { rows: vec!["13".to_owned()], ..options() });
        refused(BenchOptions { suite: Suite::Growth, ..options() });
        refused(BenchOptions { rows: vec!["blobs-of-gold".to_owned()], ..options() });
    }
}
