//! Whether the history of one tag is linearizable: Wing and Gong's search with Lowe's memory.

use std::collections::HashSet;
use std::time::Duration;

use crate::op::{Event, Op, Told};

/// Operations of one tag that can be judged.
pub(crate) const OPERATIONS_MAX: usize = 128;

type State = Option<u64>;

/// What the search decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Linearizable,
    Not,
    /// More operations than can be judged.
    TooMany,
}

struct Call {
    op: Op,
    began: Duration,
    /// `None`: unknown, it may take effect at any time after it began, or never.
    ended: Option<(Duration, Told)>,
}

/// Judges the operations of one tag, which points nowhere at the beginning.
pub(crate) fn judge(events: &[Event]) -> Judged {
    let calls: Vec<Call> = events.iter().filter_map(relevant).collect();
    if calls.len() > OPERATIONS_MAX {
        return Judged::TooMany;
    }
    let required = calls
        .iter()
        .enumerate()
        .filter(|(_, call)| call.ended.is_some())
        .fold(0_u128, |all, (number, _)| all | 1 << number);
    let mut known: HashSet<(u128, State)> = HashSet::new();
    let mut open: Vec<(u128, State)> = vec![(0, None)];
    while let Some((done, state)) = open.pop() {
        if done & required == required {
            return Judged::Linearizable;
        }
        // Whatever ended before another began comes first.
        let end = calls
            .iter()
            .enumerate()
            .filter(|(number, _)| done & (1 << number) == 0)
            .filter_map(|(_, call)| call.ended.as_ref().map(|(at, _)| *at))
            .min()
            .unwrap_or(Duration::MAX);
        for (number, call) in calls.iter().enumerate() {
            if done & (1 << number) != 0 || call.began > end {
                continue;
            }
            if let Some(next) = step(&call.op, call.ended.as_ref().map(|(_, told)| told), state) {
                let reached = (done | 1 << number, next);
                if known.insert(reached) {
                    open.push(reached);
                }
            }
        }
    }
    Judged::Not
}

/// The operations that say something.
fn relevant(event: &Event) -> Option<Call> {
    let (op, began) = (event.op.clone(), event.began);
    let ended = match &event.ended {
        Some((_, Told::NotDone(_) | Told::Stale)) => return None,
        None | Some((_, Told::Unknown(_))) if matches!(op, Op::Read { .. }) => return None,
        None | Some((_, Told::Unknown(_))) => None,
        Some((at, told)) => Some((*at, told.clone())),
    };
    Some(Call { op, began, ended })
}

/// The state after `op` if it answers `told` in `state`; `None` if it does not. Who was told nothing takes any
/// answer.
fn step(op: &Op, told: Option<&Told>, state: State) -> Option<State> {
    let (answer, next) = match op {
        Op::Read { .. } => (Told::Value(state), state),
        Op::Put { value, .. } => (Told::Done, Some(*value)),
        Op::PutIfMatch { value, expected, .. } if state == Some(*expected) => {
            (Told::Done, Some(*value))
        }
        Op::PutIfAbsent { value, .. } if state.is_none() => (Told::Done, Some(*value)),
        Op::PutIfMatch { .. } | Op::PutIfAbsent { .. } => (Told::Failed(state), state),
        Op::Delete { .. } if state.is_some() => (Told::Done, None),
        Op::Delete { .. } => (Told::Absent, None),
        Op::PushBlob { .. } | Op::PushImage { .. } | Op::DeleteImage { .. } => return None,
    };
    told.is_none_or(|told| *told == answer).then_some(next)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn event(op: Op, began: u64, ended: Option<(u64, Told)>) -> Event {
        let ended = ended.map(|(at, told)| (Duration::from_millis(at), told));
        Event { op, began: Duration::from_millis(began), ended }
    }

    fn put(value: u64, began: u64, ended: Option<u64>) -> Event {
        event(Op::Put { tag: 0, value }, began, ended.map(|at| (at, Told::Done)))
    }

    fn read(value: Option<u64>, began: u64, ended: u64) -> Event {
        event(Op::Read { tag: 0 }, began, Some((ended, Told::Value(value))))
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_caught() {
        let history = [put(1, 0, Some(1)), put(2, 2, Some(3)), read(Some(1), 4, 5)];
        assert_eq!(judge(&history), Judged::Not);
        let overlapping = [put(1, 0, Some(1)), put(2, 2, Some(5)), read(Some(1), 4, 5)];
        assert_eq!(judge(&overlapping), Judged::Linearizable);
    }

    #[test]
    fn an_unknown_write_may_come_late_and_only_once() {
        let late = [put(1, 0, None), read(None, 1, 2), read(Some(1), 3, 4)];
        assert_eq!(judge(&late), Judged::Linearizable);
        let twice = [
            put(1, 0, None),
            read(Some(1), 1, 2),
            put(2, 3, Some(4)),
            read(Some(2), 5, 6),
            read(Some(1), 7, 8),
        ];
        assert_eq!(judge(&twice), Judged::Not);
    }

    /// Every order of the operations that happened, tried one by one.
    fn brute_force(events: &[Event]) -> bool {
        fn search(calls: &[Call], done: u32, state: State) -> bool {
            let left = |n: &usize| done & (1 << n) == 0;
            let waiting: Vec<usize> = (0..calls.len()).filter(left).collect();
            if waiting.iter().all(|n| calls.get(*n).is_none_or(|call| call.ended.is_none())) {
                return true;
            }
            waiting.iter().any(|n| {
                let Some(call) = calls.get(*n) else { return false };
                let late = waiting.iter().filter_map(|m| calls.get(*m)?.ended.as_ref());
                if late.into_iter().any(|(at, _)| *at < call.began) {
                    return false;
                }
                let told = call.ended.as_ref().map(|(_, told)| told);
                step(&call.op, told, state).is_some_and(|next| search(calls, done | 1 << n, next))
            })
        }
        let calls: Vec<Call> = events.iter().filter_map(relevant).collect();
        search(&calls, 0, None)
    }

    #[test]
    fn it_agrees_with_brute_force() {
        let mut dice = StdRng::seed_from_u64(5);
        let mut wrong = 0;
        for _ in 0..3_000 {
            let events: Vec<Event> = (0..dice.random_range(2..7))
                .map(|_| {
                    let value = dice.random_range(1..3);
                    let seen = Some(dice.random_range(0..3)).filter(|value| *value > 0);
                    let began = dice.random_range(0..12);
                    let ended = began + dice.random_range(1..6);
                    let (op, told) = match dice.random_range(0..5) {
                        0 => (Op::Put { tag: 0, value }, Told::Done),
                        1 => (Op::Delete { tag: 0 }, Told::Done),
                        2 => (Op::PutIfAbsent { tag: 0, value }, Told::Failed(seen)),
                        3 => (Op::PutIfMatch { tag: 0, value, expected: 1 }, Told::Done),
                        _ => (Op::Read { tag: 0 }, Told::Value(seen)),
                    };
                    event(op, began, dice.random_bool(0.8).then_some((ended, told)))
                })
                .collect();
            let expected = brute_force(&events);
            wrong += usize::from(!expected);
            assert_eq!(judge(&events) == Judged::Linearizable, expected, "{events:#?}");
        }
        assert!((300..2_700).contains(&wrong), "{wrong} of 3000 are wrong: too one-sided");
    }
}
