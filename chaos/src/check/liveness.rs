//! I8: with a majority up writes resume, and pulls of what is held never stop.
//!
//! A scenario that leaves a majority says so and measures the next write. Beside that the timeline of the whole run is
//! looked through: a long time in which nothing was committed, although a majority of the replicas was asked to once
//! the bound was over, is a violation. Of a majority at least one replica was up, since at most a minority was hurt;
//! clients that hang at a replica that is paused prove nothing. While a majority is gone nothing is due.

use std::time::Duration;

use anyhow::Error;

use crate::{
    timeline::Silence,
    workload::{Invariant, Ledger},
};

/// Writes resume within this with a majority up.
pub(crate) const RESUME_MAX: Duration = Duration::from_secs(10);
/// The same, on a machine that other tests use at the same time.
pub(crate) const RESUME_MAX_SHARED: Duration = Duration::from_secs(20);
/// How long the pull of an image goes on from replica to replica, as a kubelet does.
pub(crate) const PULL_PATIENCE: Duration = Duration::from_secs(20);

impl Ledger {
    /// A write was acknowledged so long after a fault that left a majority.
    pub(crate) fn judge_resumed(&self, took: Duration, bound: Duration) {
        if took > bound {
            let what =
                format!("writes resumed after {took:?} with a majority up, {bound:?} is due");
            self.violated(Invariant::I8, what);
        }
    }

    /// No write was acknowledged at all after a fault that left a majority.
    pub(crate) fn never_resumed(&self, error: &Error) {
        self.violated(Invariant::I8, format!("with a majority up {error:#}"));
    }

    /// A pull of what is held was given up: nobody gave it for so long.
    pub(crate) fn pull_stopped(&self, what: &str, patience: Duration) {
        self.count(|counts| counts.failed_pulls += 1);
        self.violated(Invariant::I8, format!("no replica gave {what} within {patience:?}"));
    }
}

/// Looks through the times in which nothing was committed, in a cluster of so many members.
pub(crate) fn check_liveness(ledger: &Ledger, members: usize, bound: Duration) {
    for silence in ledger.recorder().silences() {
        if let Some(what) = too_long(&silence, members, bound) {
            ledger.violated(Invariant::I8, what);
        }
    }
    // Where a majority was never asked for anything nothing is shown.
    if ledger.recorder().was_due() {
        ledger.checked(Invariant::I8);
    }
}

fn too_long(silence: &Silence, members: usize, bound: Duration) -> Option<String> {
    let due = silence.start + bound;
    let refused = silence.asked.iter().filter(|(_, asked)| **asked > due);
    let refused: Vec<&str> = refused.map(|(name, _)| name.as_str()).collect();
    (refused.len() > members / 2).then(|| {
        format!(
            "nothing was committed from {:.1} s to {:.1} s, and after {bound:?} of that {} did not \
             commit what they were asked to, with a majority up",
            silence.start.as_secs_f64(),
            silence.end.as_secs_f64(),
            refused.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn silence(end: u64, asked: &[(&str, u64)]) -> Silence {
        let asked = asked.iter().map(|(name, at)| ((*name).to_owned(), Duration::from_secs(*at)));
        let (start, end) = (Duration::from_secs(100), Duration::from_secs(end));
        Silence { start, end, asked: asked.collect::<BTreeMap<_, _>>() }
    }

    #[test]
    fn a_silence_counts_if_a_majority_was_asked_after_the_bound() {
        let judged = |silence, members| too_long(&silence, members, RESUME_MAX).is_some();
        assert!(judged(silence(120, &[("a", 111), ("b", 115)]), 3));
        // The one that is hurt refuses, the others were not asked, or not late enough.
        assert!(!judged(silence(120, &[("a", 119)]), 3));
        assert!(!judged(silence(120, &[("a", 119), ("b", 109)]), 3));
        assert!(!judged(silence(112, &[("a", 108), ("b", 109)]), 3));
        assert!(!judged(silence(120, &[("a", 111), ("b", 115)]), 5));
        assert!(judged(silence(120, &[("a", 111), ("b", 115), ("c", 116)]), 5));
    }

    #[test]
    fn a_write_that_comes_late_and_a_pull_that_ends_are_told() {
        let ledger = Ledger::default();
        ledger.judge_resumed(Duration::from_secs(9), RESUME_MAX);
        assert!(ledger.violations().is_empty());
        ledger.judge_resumed(Duration::from_secs(11), RESUME_MAX);
        ledger.pull_stopped("a:b", PULL_PATIENCE);
        assert_eq!(ledger.violations().len(), 2);
        assert_eq!(ledger.counts().failed_pulls, 1);
    }
}
