//! Bugs that the replicas of a run are asked to have, and how long such a run goes on: see [`crate::judge`].
//!
//! Both come by the environment, since a run may be a process in namespaces of its own.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    binary::Binary,
    check::check_tags_so_far,
    workload::{Invariant, Ledger},
};

/// Names the bug, to this program and to the replicas that it starts. Only a build for tests understands it.
pub(crate) const BUG: &str = "TERCET_PLANTED_BUG";
/// Invariants, with commas between: a run ends as soon as one of them is broken.
pub(crate) const UNTIL: &str = "TERCET_CHAOS_UNTIL_BROKEN";

/// In every build that can have bugs.
const MARK: &[u8] = b"A BUG IS PLANTED";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The histories of tags are checked after so many looks.
const LOOKS_PER_CHECK: u64 = 20;

/// The bug of this run.
pub(crate) fn bug() -> Option<String> {
    std::env::var(BUG).ok()
}

/// Gives it to a replica.
pub(crate) fn pass_on(replica: &mut Command) {
    if let Some(bug) = bug() {
        replica.env(BUG, bug);
    }
}

/// Whether the program under test can have bugs at all.
pub(crate) fn check_program() -> Result<()> {
    let binary = Binary::locate()?;
    let program = std::fs::read(binary.path())?;
    ensure!(
        program.windows(MARK.len()).any(|bytes| bytes == MARK),
        "{} has no planted bugs: build one with `cargo test --workspace --no-run`",
        binary.path().display()
    );
    Ok(())
}

/// Returns when an invariant is broken that ends this run; never, if there is none.
pub(crate) async fn broken(ledger: &Ledger) {
    let Ok(names) = std::env::var(UNTIL) else { return std::future::pending().await };
    let ends = |invariant: &Invariant| names.split(',').any(|name| name == invariant.to_string());
    let (mut looks, of_tags) = (0_u64, ends(&Invariant::I3));
    while !ledger.violations().iter().any(|(invariant, _)| ends(invariant)) {
        tokio::time::sleep(LOOK_EVERY).await;
        looks += 1;
        if of_tags && looks.is_multiple_of(LOOKS_PER_CHECK) {
            check_tags_so_far(ledger);
        }
    }
}
