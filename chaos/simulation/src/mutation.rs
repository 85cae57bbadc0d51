//! Rules that the simulation can be told to break, to see whether it notices.

use clap::ValueEnum;

/// One broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// Entries of the log are confirmed before they are synced.
    AckBeforeFsync,
    /// A vote is told before it is on the disk, and never gets there.
    VoteNotPersisted,
    /// A push is acknowledged with one copy fewer than the write quorum.
    AckTooEarly,
    /// Reads do not wait for the read barrier.
    SkipReadBarrier,
    /// A wiped disk comes back under the id that it had.
    ReuseNodeId,
    /// The file of a collected blob goes without a second look.
    CollectWithoutRecheck,
    /// The push of a manifest is acknowledged before the group has committed it.
    AckBeforeCommit,
}
