//! Which replica a request goes to.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The rule by which a client chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Always the first of the given replicas.
    One,
    /// Every single request to the next replica, around and around.
    NextEachTime,
}

#[derive(Debug)]
pub(super) struct Chooser {
    bases: Vec<String>,
    target: Target,
    turn: AtomicUsize,
}

impl Chooser {
    pub(super) fn new(bases: Vec<String>, target: Target) -> Self {
        Self { bases, target, turn: AtomicUsize::new(0) }
    }

    /// The base URL for the next request.
    pub(super) fn next(&self) -> String {
        let turn = match self.target {
            Target::One => 0,
            Target::NextEachTime => self.turn.fetch_add(1, Ordering::Relaxed),
        };
        self.bases.iter().cycle().nth(turn % self.bases.len().max(1)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_goes_to_the_next_replica() {
        let bases = vec!["a".to_owned(), "b".to_owned()];
        let chooser = Chooser::new(bases, Target::NextEachTime);
        let seen: Vec<String> = (0..5).map(|_| chooser.next()).collect();
        assert_eq!(seen, ["a", "b", "a", "b", "a"]);
    }
}
