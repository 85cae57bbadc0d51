//! Bugs that a test build can be asked to have. Whoever judges clusters must find each of them: see
//! `docs/src/judge.md`. Without the cargo feature `planted-bugs` there are none, and nothing asks for them.
//!
//! With it, `TERCET_PLANTED_BUG=name` gives the process the bug of that name for as long as it lives. The names
//! are those of the variants of [`PlantedBug`], in lower case with hyphens.

/// A promise that the code can be made to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A blob is published without an fsync of its file and its directory.
    SkipBlobFsync,
    /// Votes and log entries count as durable before the Raft log is synced.
    SkipLogFsync,
    /// A push is acknowledged with one durable copy fewer than the write quorum.
    AckTooEarly,
    /// What is uploaded is published under the digest that its sender claims.
    SkipDigestCheck,
    /// A blob is given as it lies on the disk.
    SkipReadCheck,
    /// Answers without a majority are not marked as stale.
    StaleAsFresh,
    /// Reads do not ask the leader how much they must have seen.
    SkipReadBarrier,
    /// The file of a collected blob goes without a lock, and without a second look at who needs it by now.
    CollectWithoutRecheck,
    /// A disk that is empty gets the Raft id that its replica had before.
    ReuseNodeId,
}

/// Whether this process has the bug.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn is_planted(_bug: PlantedBug) -> bool {
    false
}

/// Whether this process has the bug. A name that `TERCET_PLANTED_BUG` gives and nobody knows ends the process.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: PlantedBug) -> bool {
    asked::bug() == Some(bug)
}

/// Whether the environment may have a variable of this name because of the bugs.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn is_variable(_name: &str) -> bool {
    false
}

/// Whether the environment may have a variable of this name because of the bugs.
#[cfg(feature = "planted-bugs")]
pub fn is_variable(name: &str) -> bool {
    name == asked::VARIABLE
}

/// Says loudly which bug this process has, for whoever reads its log.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn announce() {}

/// Says loudly which bug this process has, for whoever reads its log.
#[cfg(feature = "planted-bugs")]
pub fn announce() {
    if let Some(bug) = asked::bug() {
        tracing::error!(bug = asked::name(bug), "THIS REPLICA BREAKS A PROMISE: A BUG IS PLANTED");
    }
}

#[cfg(feature = "planted-bugs")]
mod asked {
    use std::sync::OnceLock;

    use super::PlantedBug;

    pub(super) const VARIABLE: &str = "TERCET_PLANTED_BUG";

    /// `EX_CONFIG` of sysexits(3).
    const EXIT_CONFIG: i32 = 78;

    const ALL: &[PlantedBug] = &[
        PlantedBug::SkipBlobFsync,
        PlantedBug::SkipLogFsync,
        PlantedBug::AckTooEarly,
        PlantedBug::SkipDigestCheck,
        PlantedBug::SkipReadCheck,
        PlantedBug::StaleAsFresh,
        PlantedBug::SkipReadBarrier,
        PlantedBug::CollectWithoutRecheck,
        PlantedBug::ReuseNodeId,
    ];

    static ASKED: OnceLock<Option<PlantedBug>> = OnceLock::new();

    pub(super) fn bug() -> Option<PlantedBug> {
        *ASKED.get_or_init(|| {
            let text = std::env::var_os(VARIABLE)?;
            let known = ALL.iter().find(|bug| text == name(**bug));
            if known.is_none() {
                // A judge who asks for a bug that is not there must not find that nothing is wrong.
                let names: Vec<&str> = ALL.iter().copied().map(name).collect();
                eprintln!("tercet: {VARIABLE}={text:?}: the bugs are {}", names.join(", "));
                std::process::exit(EXIT_CONFIG);
            }
            known.copied()
        })
    }

    pub(super) fn name(bug: PlantedBug) -> &'static str {
        match bug {
            PlantedBug::SkipBlobFsync => "skip-blob-fsync",
            PlantedBug::SkipLogFsync => "skip-log-fsync",
            PlantedBug::AckTooEarly => "ack-too-early",
            PlantedBug::SkipDigestCheck => "skip-digest-check",
            PlantedBug::SkipReadCheck => "skip-read-check",
            PlantedBug::StaleAsFresh => "stale-as-fresh",
            PlantedBug::SkipReadBarrier => "skip-read-barrier",
            PlantedBug::CollectWithoutRecheck => "collect-without-recheck",
            PlantedBug::ReuseNodeId => "reuse-node-id",
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
        use std::collections::BTreeSet;

        use super::*;

        #[test]
        fn every_bug_has_a_name_of_its_own_and_none_is_asked_for() {
            let names: BTreeSet<&str> = ALL.iter().copied().map(name).collect();
            assert_eq!(names.len(), ALL.len());
            assert_eq!(bug(), None, "the tests run without {VARIABLE}");
        }
    }
}
