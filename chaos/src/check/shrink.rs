//! The shortest part of a history that still contradicts itself, for a person to read.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    history::{Operation, OperationKind},
    linearizable::{Explained, SearchLimits, explain},
};

/// Of each search: one that goes on is given up, and what it would have removed stays.
const SEARCH: SearchLimits = SearchLimits { places: 50_000, time: Duration::from_millis(500) };
/// For all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Leaves out of a history that cannot be explained what it does not need for that.
pub(crate) fn shrink(history: &[Operation]) -> Vec<Operation> {
    let start = Instant::now();
    let mut best = shortest_prefix(history);
    if !contradicts(&best) {
        // The search of the whole history has had more time.
        return history.to_vec();
    }
    // Where an answer says what the tag was not, any other change may be what it needs.
    let changes_can_go = !best.iter().any(|operation| {
        matches!(
            operation.kind,
            OperationKind::Differs(_) | OperationKind::Delete | OperationKind::Swap { .. }
        )
    });
    let mut size = best.len();
    while size > 1 && start.elapsed() < PATIENCE {
        size = size.div_ceil(2);
        let mut position = 0;
        while position < best.len() && start.elapsed() < PATIENCE {
            let part = best.get(position..(position + size).min(best.len())).unwrap_or_default();
            let without = without(&best, part, changes_can_go);
            if without.len() < best.len() && contradicts(&without) {
                best = without;
            } else {
                position += size;
            }
        }
    }
    best.sort_by_key(|operation| operation.invoked);
    best
}

fn contradicts(history: &[Operation]) -> bool {
    matches!(explain(history, SEARCH), Ok(Explained::No))
}

/// What was known at the earliest moment at which no order explained it any more.
fn shortest_prefix(history: &[Operation]) -> Vec<Operation> {
    let mut times: Vec<i64> = history.iter().filter_map(|operation| operation.returned).collect();
    times.sort_unstable();
    let (mut low, mut high) = (0, times.len());
    while low < high {
        let middle = low.midpoint(high);
        let Some(time) = times.get(middle) else { break };
        if contradicts(&known_at(history, *time)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    match times.get(low) {
        Some(time) => known_at(history, *time),
        None => history.to_vec(),
    }
}

/// The history as it was at a moment: what had no answer by then is open, or was only a question.
fn known_at(history: &[Operation], time: i64) -> Vec<Operation> {
    let begun = history.iter().filter(|operation| operation.invoked <= time);
    begun
        .filter_map(|operation| {
            let mut operation = operation.clone();
            operation.returned = operation.returned.filter(|returned| *returned <= time);
            (operation.returned.is_some() || !operation.only_looks()).then_some(operation)
        })
        .collect()
}

/// The history without a part: a change goes only with everything that saw it.
fn without(history: &[Operation], part: &[Operation], changes_can_go: bool) -> Vec<Operation> {
    let gone: BTreeSet<&str> = match changes_can_go {
        true => part.iter().filter_map(Operation::sets).collect(),
        false => BTreeSet::new(),
    };
    let stays = |operation: &&Operation| {
        let about = operation.sets().or_else(|| operation.sees());
        if about.is_some_and(|value| gone.contains(value)) {
            return false;
        }
        !operation.only_looks() || !part.contains(operation)
    };
    history.iter().filter(stays).cloned().collect()
}
