//! Whether the history of one tag is that of an atomic register, by a second method that knows reads and writes only.
//!
//! It decides what the search of [`super::linearizable`] had to give up, and the tests compare the two. Every write of a workload has a value of its own, so a read says which write it saw. Each value then covers a
//! span of time: from the first answer of an operation on it to the last start of one. A history is linearizable
//! exactly if no read ends before its write begins, no two values cover each other's time, and no value that needs
//! no time falls wholly into the time of another (Gibbons and Korach, 1997). That costs a sort, not a search.

use std::collections::BTreeMap;

use super::history::{Operation, OperationKind, short};

/// The time that a value covers.
#[derive(Clone, Copy, Debug)]
struct Zone {
    written: i64,
    first_end: i64,
    last_start: i64,
}

impl Zone {
    /// Whether the register must have had the value from `first_end` to `last_start`.
    fn needs_time(self) -> bool {
        self.first_end < self.last_start
    }
}

/// Whether the method knows everything in a history.
pub(crate) fn is_register(history: &[Operation]) -> bool {
    let known =
        |kind: &OperationKind| matches!(kind, OperationKind::Read(_) | OperationKind::Write(_));
    history.iter().all(|operation| known(&operation.kind))
}

/// Checks the history of one register that begins without a value. What is neither a read nor a write is passed over.
///
/// # Errors
/// Says which values contradict each other.
pub fn check_register(history: &[Operation]) -> Result<(), String> {
    let zones = zones(history)?;
    let (mut needing, others): (Vec<_>, Vec<_>) =
        zones.iter().map(|(name, zone)| (*name, *zone)).partition(|(_, zone)| zone.needs_time());
    needing.sort_by_key(|(_, zone)| zone.first_end);
    for ((one, earlier), (two, later)) in needing.iter().zip(needing.iter().skip(1)) {
        if later.first_end < earlier.last_start {
            return Err(format!(
                "{} and {} were each read after the other: {earlier:?}, {later:?}",
                short(*one),
                short(*two)
            ));
        }
    }
    for (name, zone) in others {
        let before = needing.partition_point(|(_, needed)| needed.first_end < zone.last_start);
        let around = before.checked_sub(1).and_then(|index| needing.get(index));
        if let Some((outer, needed)) = around
            && zone.first_end < needed.last_start
        {
            return Err(format!(
                "{} was set while {} was there before and after: {zone:?} within {needed:?}",
                short(name),
                short(*outer)
            ));
        }
    }
    Ok(())
}

/// Every value that was acknowledged or seen, with its time.
fn zones(history: &[Operation]) -> Result<BTreeMap<Option<&str>, Zone>, String> {
    let start = Zone { written: i64::MIN, first_end: i64::MIN, last_start: i64::MIN };
    let mut zones = BTreeMap::from([(None, start)]);
    for operation in history {
        if let OperationKind::Write(value) = &operation.kind {
            let zone = Zone {
                written: operation.invoked,
                first_end: operation.returned.unwrap_or(i64::MAX),
                last_start: operation.invoked,
            };
            if zones.insert(Some(value.as_str()), zone).is_some() {
                return Err(format!("{value} was written twice: the workload is wrong"));
            }
        }
    }
    for operation in history {
        let OperationKind::Read(value) = &operation.kind else { continue };
        let Some(returned) = operation.returned else { continue };
        let zone = zones
            .get_mut(&value.as_deref())
            .ok_or_else(|| format!("{} was read and never written", short(value.as_deref())))?;
        if returned < zone.written {
            return Err(format!("{} was read before its write began", short(value.as_deref())));
        }
        zone.first_end = zone.first_end.min(returned);
        zone.last_start = zone.last_start.max(operation.invoked);
    }
    // A write without an answer that nobody saw may never have happened.
    zones.retain(|_, zone| zone.first_end != i64::MAX);
    Ok(zones)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(value: &str, invoked: i64, returned: Option<i64>) -> Operation {
        Operation::new(OperationKind::Write(value.to_owned()), invoked, returned)
    }

    fn read(value: Option<&str>, invoked: i64, returned: i64) -> Operation {
        Operation::new(OperationKind::Read(value.map(str::to_owned)), invoked, Some(returned))
    }

    #[test]
    fn a_read_of_an_overwritten_value_is_found() {
        let stale = [
            write("a", 0, Some(1)),
            write("b", 2, Some(3)),
            read(Some("b"), 4, 5),
            read(Some("a"), 6, 7),
        ];
        check_register(&stale).unwrap_err();
        // The same reads at the same time as the second write are fine in this order only.
        let concurrent = [
            write("a", 0, Some(1)),
            write("b", 2, Some(9)),
            read(Some("a"), 3, 4),
            read(Some("b"), 5, 6),
        ];
        check_register(&concurrent).unwrap();
        let swapped = [
            write("a", 0, Some(1)),
            write("b", 2, Some(9)),
            read(Some("b"), 3, 4),
            read(Some("a"), 5, 6),
        ];
        check_register(&swapped).unwrap_err();
    }

    #[test]
    fn a_lost_write_is_found() {
        check_register(&[write("a", 0, Some(1)), read(None, 2, 3)]).unwrap_err();
        let lost = [write("a", 0, Some(1)), write("b", 2, Some(3)), read(Some("a"), 4, 5)];
        check_register(&lost).unwrap_err();
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_late_or_never() {
        let open = [write("a", 0, None), read(None, 10, 11), read(Some("a"), 20, 21)];
        check_register(&open).unwrap();
        check_register(&[write("a", 0, None), read(None, 10, 11)]).unwrap();
        let flickering = [write("a", 0, None), read(Some("a"), 10, 11), read(None, 20, 21)];
        check_register(&flickering).unwrap_err();
    }

    #[test]
    fn a_value_from_nowhere_or_from_the_future_is_found() {
        check_register(&[read(Some("x"), 0, 1)]).unwrap_err();
        check_register(&[read(Some("a"), 0, 1), write("a", 2, Some(3))]).unwrap_err();
    }
}
