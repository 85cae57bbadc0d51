//! Whether the history of one tag is that of an atomic register.
//!
//! Every write of a workload has a value of its own, so a read says which write it saw. Each value then covers a
//! span of time: from the first answer of an operation on it to the last start of one. A history is linearizable
//! exactly if no read ends before its write begins, no two values cover each other's time, and no value that needs
//! no time falls wholly into the time of another (Gibbons and Korach, 1997). That costs a sort, not a search.

use std::collections::BTreeMap;

/// One operation on a tag, in nanoseconds since the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it was.
    pub kind: OperationKind,
    /// When the client sent it.
    pub invoked: i64,
    /// When the client had its answer. `None` for a write whose outcome nobody knows: it stays open.
    pub returned: Option<i64>,
}

/// A write or a read, with the manifest's digest as the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// The tag was set.
    Write(String),
    /// The tag was read; `None` if it did not exist.
    Read(Option<String>),
}

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

/// Checks the history of one register that begins without a value.
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
                shown(*one),
                shown(*two)
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
                shown(name),
                shown(*outer)
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
            .ok_or_else(|| format!("{} was read and never written", shown(value.as_deref())))?;
        if returned < zone.written {
            return Err(format!("{} was read before its write began", shown(value.as_deref())));
        }
        zone.first_end = zone.first_end.min(returned);
        zone.last_start = zone.last_start.max(operation.invoked);
    }
    // A write without an answer that nobody saw may never have happened.
    zones.retain(|_, zone| zone.first_end != i64::MAX);
    Ok(zones)
}

fn shown(value: Option<&str>) -> String {
    value.unwrap_or("no value").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    fn write(value: &str, invoked: i64, returned: Option<i64>) -> Operation {
        Operation { kind: OperationKind::Write(value.to_owned()), invoked, returned }
    }

    fn read(value: Option<&str>, invoked: i64, returned: i64) -> Operation {
        let kind = OperationKind::Read(value.map(str::to_owned));
        Operation { kind, invoked, returned: Some(returned) }
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

    /// Tries every order: right by construction, and hopeless for more than a few operations.
    fn search(left: &[Operation], value: Option<&str>) -> bool {
        let horizon = left.iter().filter_map(|operation| operation.returned).min();
        let Some(horizon) = horizon else { return true };
        (0..left.len()).any(|index| {
            let mut rest = left.to_vec();
            let next = rest.remove(index);
            if next.invoked > horizon {
                return false;
            }
            match &next.kind {
                OperationKind::Write(new) => search(&rest, Some(new)),
                OperationKind::Read(seen) => seen.as_deref() == value && search(&rest, value),
            }
        })
    }

    #[test]
    fn it_agrees_with_a_search_over_all_orders() {
        let mut random = StdRng::seed_from_u64(1);
        let mut found = [0_u32; 2];
        for _ in 0..20_000 {
            // Times without ties: what is at the same time is decided differently, and either is right.
            let mut times: Vec<i64> = (0..12).collect();
            let mut take = || times.remove(random.random_range(0..times.len()));
            let spans: Vec<(i64, i64)> = (0..6)
                .map(|_| {
                    let (one, two) = (take(), take());
                    (one.min(two), one.max(two))
                })
                .collect();
            let names = ["a", "b", "c"];
            let mut history = Vec::new();
            for (index, (invoked, returned)) in spans.into_iter().enumerate() {
                if let Some(name) = names.get(index) {
                    let open = random.random_bool(0.2);
                    history.push(write(name, invoked, (!open).then_some(returned)));
                } else {
                    let value = names.get(random.random_range(0..4_usize)).copied();
                    history.push(read(value, invoked, returned));
                }
            }
            let quick = check_register(&history).is_ok();
            let sure = search(&history, None);
            assert_eq!(quick, sure, "{history:?}");
            found[usize::from(sure)] += 1;
        }
        assert!(found.iter().all(|count| *count > 500), "both kinds were tried: {found:?}");
    }
}
