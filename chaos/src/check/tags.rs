//! I3: each (repository, tag) by itself is linearizable.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    history::{Operation, OperationKind},
    linearizable::{Explained, SearchLimits, explain},
    register::{check_register, is_register},
    shrink::shrink,
};
use crate::workload::{Invariant, Ledger};

/// Operations of a contradiction that are shown.
const SHOWN: usize = 24;

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedTags {
    /// Tags.
    pub tags: usize,
    /// Operations on them.
    pub operations: usize,
    /// Of those, the changes that happened or may have.
    pub changes: usize,
    /// Tags of which nothing can be said, and why.
    pub unsure: Vec<String>,
}

/// Checks the histories of all tags in the ledger, and writes the contradictions into it.
pub(crate) fn check_tags(ledger: &Ledger) -> CheckedTags {
    let mut checked = CheckedTags::default();
    for ((repository, tag), history) in ledger.take_histories() {
        checked.tags += 1;
        checked.operations += history.len();
        checked.changes += history.iter().filter(|operation| !operation.only_looks()).count();
        match check_history(&history, SearchLimits::default()) {
            Ok(Explained::Yes | Explained::No) => {}
            Ok(Explained::Unsure(why)) => checked.unsure.push(format!("{repository}:{tag}: {why}")),
            Err(reason) => ledger.violated(Invariant::I3, format!("{repository}:{tag}: {reason}")),
        }
    }
    if checked.unsure.is_empty() && checked.operations > 0 {
        ledger.checked(Invariant::I3);
    }
    checked
}

/// Checks what is known of the tags while clients still write and read them, and writes the contradictions into the
/// ledger. Finds fewer than [`check_tags`], and none that it would not find.
pub(crate) fn check_tags_so_far(ledger: &Ledger) {
    for ((repository, tag), history) in ledger.histories() {
        if let Err(reason) = check_register(&known_so_far(&history)) {
            ledger.violated(Invariant::I3, format!("{repository}:{tag}: {reason}"));
        }
    }
}

/// The plain writes, and the reads that saw one of them. What has no answer yet is not in the history, but its effect may
/// have been read; so whatever else was read is left out, and whatever else changes the tag. No history becomes wrong
/// by leaving out reads, or writes that nobody saw.
fn known_so_far(history: &[Operation]) -> Vec<Operation> {
    let writes = history.iter().filter_map(|operation| match &operation.kind {
        OperationKind::Write(value) => Some(value.as_str()),
        _ => None,
    });
    let written: BTreeSet<&str> = writes.collect();
    let known = |operation: &&Operation| match &operation.kind {
        OperationKind::Write(_) => true,
        OperationKind::Read(Some(value)) => written.contains(value.as_str()),
        _ => false,
    };
    history.iter().filter(known).cloned().collect()
}

/// Checks the history of one tag that begins without a value.
///
/// # Errors
/// Shows the shortest part of it that no order explains.
pub fn check_history(history: &[Operation], limits: SearchLimits) -> Result<Explained, String> {
    match explain(history, limits)? {
        Explained::Yes => Ok(Explained::Yes),
        Explained::No => Err(contradiction(history)),
        // Of reads and writes alone the other method always knows.
        Explained::Unsure(_) if is_register(history) => {
            check_register(history).map(|()| Explained::Yes)
        }
        Explained::Unsure(why) => Ok(Explained::Unsure(why)),
    }
}

fn contradiction(history: &[Operation]) -> String {
    // Mostly plain writes and reads are enough, of which much more can be left out.
    let plain = known_so_far(history);
    let enough = matches!(explain(&plain, SearchLimits::default()), Ok(Explained::No));
    let part = shrink(if enough { plain.as_slice() } else { history });
    let mut text =
        format!("no order explains these {} of {} operations:", part.len(), history.len());
    for operation in part.iter().take(SHOWN) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    {operation}");
    }
    if part.len() > SHOWN {
        let _ = write!(text, "\n    and {} more", part.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_value_is_found_while_others_are_still_being_written() {
        let operation = |kind, invoked, returned| Operation::new(kind, invoked, Some(returned));
        let write = |value: &str| OperationKind::Write(value.to_owned());
        let read = |value: &str| OperationKind::Read(Some(value.to_owned()));
        let fine = vec![
            operation(write("a"), 0, 1),
            operation(write("b"), 2, 3),
            // Its write has no answer yet.
            operation(read("c"), 4, 5),
            operation(read("b"), 4, 6),
            // Nor has its removal.
            operation(OperationKind::Read(None), 4, 6),
        ];
        let said = |history: Vec<Operation>| {
            let ledger = Ledger::default();
            history.into_iter().for_each(|operation| ledger.record("a", "t", operation));
            check_tags_so_far(&ledger);
            ledger.violations().len()
        };
        assert_eq!(said(fine.clone()), 0);
        let old = operation(read("a"), 7, 8);
        assert_eq!(said([fine, vec![old]].concat()), 1);
    }
}
