//! Which scenario is next.

use std::{collections::BTreeMap, time::Duration};

/// A list that is run once, or again and again as long as there is time.
#[derive(Debug)]
pub(super) struct Plan {
    names: Vec<&'static str>,
    /// How long all of it may take; without it the list is run once.
    budget: Option<Duration>,
    /// How long each took when it was last run.
    took: BTreeMap<&'static str, Duration>,
    round: u64,
    index: usize,
    started_in_round: u64,
}

/// A scenario that is to be run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) name: &'static str,
    /// How many times the list has been gone through before.
    pub(super) round: u64,
}

impl Plan {
    pub(super) fn new(names: Vec<&'static str>, budget: Option<Duration>) -> Self {
        Self { names, budget, took: BTreeMap::new(), round: 0, index: 0, started_in_round: 0 }
    }

    /// The next one, if there is time for it. One that was never run is judged by nothing: it is begun as long as any
    /// time is left.
    pub(super) fn next(&mut self, elapsed: Duration) -> Option<Next> {
        loop {
            let Some(name) = self.names.get(self.index).copied() else {
                if self.budget.is_none() || self.started_in_round == 0 {
                    return None;
                }
                (self.round, self.index, self.started_in_round) = (self.round + 1, 0, 0);
                continue;
            };
            self.index += 1;
            if self.fits(name, elapsed) {
                self.started_in_round += 1;
                return Some(Next { name, round: self.round });
            }
        }
    }

    /// A scenario has ended.
    pub(super) fn ended(&mut self, name: &'static str, took: Duration) {
        self.took.insert(name, took);
    }

    fn fits(&self, name: &str, elapsed: Duration) -> bool {
        let Some(budget) = self.budget else { return true };
        let needed = self.took.get(name).copied().unwrap_or(Duration::from_nanos(1));
        elapsed + needed <= budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a plan by a clock of its own; each scenario takes as many seconds as its name has letters.
    fn play(mut plan: Plan) -> (Vec<String>, u64) {
        let (mut played, mut now) = (Vec::new(), 0);
        while let Some(next) = plan.next(Duration::from_secs(now)) {
            let seconds = next.name.len() as u64;
            now += seconds;
            plan.ended(next.name, Duration::from_secs(seconds));
            played.push(format!("{}{}", next.name, next.round));
        }
        (played, now)
    }

    #[test]
    fn without_a_budget_the_list_is_run_once() {
        assert_eq!(play(Plan::new(vec!["aa", "b"], None)).0, ["aa0", "b0"]);
        assert!(play(Plan::new(Vec::new(), None)).0.is_empty());
    }

    #[test]
    fn with_a_budget_it_is_repeated_as_long_as_one_fits() {
        let budget = Some(Duration::from_secs(10));
        let (played, took) = play(Plan::new(vec!["aaaa", "b"], budget));
        assert_eq!(played, ["aaaa0", "b0", "aaaa1", "b1"]);
        assert_eq!(took, 10);
        // The long one does not fit any more, the short one does.
        let budget = Some(Duration::from_secs(8));
        let (played, took) = play(Plan::new(vec!["aaaa", "b"], budget));
        assert_eq!(played, ["aaaa0", "b0", "b1", "b2", "b3"]);
        assert_eq!(took, 8);
    }

    #[test]
    fn no_time_is_no_run() {
        assert!(play(Plan::new(vec!["a"], Some(Duration::ZERO))).0.is_empty());
    }
}
