#![allow(clippy::unwrap_used, clippy::panic)]
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::super::{
    register::{check_register, is_register},
    shrink::shrink,
    tags::check_history,
};
use super::*;

fn op(kind: OperationKind, invoked: i64, returned: impl Into<Option<i64>>) -> Operation {
    Operation::new(kind, invoked, returned.into())
}

fn write(value: &str) -> OperationKind {
    OperationKind::Write(value.to_owned())
}

fn read(value: impl Into<Option<&'static str>>) -> OperationKind {
    OperationKind::Read(value.into().map(str::to_owned))
}

fn swap(from: Option<&str>, to: &str) -> OperationKind {
    OperationKind::Swap { from: from.map(str::to_owned), to: to.to_owned() }
}

fn differs(value: Option<&str>) -> OperationKind {
    OperationKind::Differs(value.map(str::to_owned))
}

fn explained(history: &[Operation]) -> bool {
    match explain(history, SearchLimits::default()) {
        Ok(Explained::Yes) => true,
        Ok(Explained::No) | Err(_) => false,
        Ok(Explained::Unsure(why)) => panic!("unsure {why}: {history:?}"),
    }
}

#[test]
fn a_stale_read_and_a_lost_write_are_found() {
    let stale =
        [op(write("a"), 0, 1), op(write("b"), 2, 3), op(read("b"), 4, 5), op(read("a"), 6, 7)];
    assert!(!explained(&stale));
    assert!(!explained(&[op(write("a"), 0, 1), op(read(None), 2, 3)]));
    assert!(!explained(&[op(read("x"), 0, 1)]));
    assert!(!explained(&[op(read("a"), 0, 1), op(write("a"), 2, 3)]));
    let concurrent =
        [op(write("a"), 0, 1), op(write("b"), 2, 9), op(read("a"), 3, 4), op(read("b"), 5, 6)];
    assert!(explained(&concurrent));
}

#[test]
fn a_write_of_unknown_outcome_happens_late_or_never_but_does_not_flicker() {
    assert!(explained(&[op(write("a"), 0, None), op(read(None), 10, 11), op(read("a"), 20, 21)]));
    assert!(explained(&[op(write("a"), 0, None), op(read(None), 10, 11)]));
    assert!(!explained(&[op(write("a"), 0, None), op(read("a"), 10, 11), op(read(None), 20, 21)]));
    // Nobody saw it, and yet it is what the refusal needs.
    let refused = [op(write("a"), 0, 1), op(write("b"), 2, None), op(differs(Some("a")), 3, 4)];
    assert!(explained(&refused));
    assert!(!explained(&[op(write("a"), 0, 1), op(differs(Some("a")), 3, 4)]));
    // A swap whose answer was lost and whose value was seen has itself seen another lost one.
    let chain = [op(write("a"), 0, None), op(swap(Some("a"), "b"), 1, None), op(read("b"), 5, 6)];
    assert!(explained(&chain));
    assert!(!explained(&chain[1..]));
}

#[test]
fn of_two_swaps_from_one_value_one_wins() {
    let (one, two) = (swap(Some("a"), "b"), swap(Some("a"), "c"));
    assert!(!explained(&[op(write("a"), 0, 1), op(one.clone(), 2, 9), op(two.clone(), 3, 8)]));
    let fair = [op(write("a"), 0, 1), op(one, 2, 9), op(differs(Some("a")), 3, 8)];
    assert!(explained(&fair));
    assert!(!explained(&[op(swap(None, "a"), 0, 5), op(swap(None, "b"), 1, 6)]));
    // With a removal between them, both may.
    let removed =
        [op(swap(None, "a"), 0, 5), op(OperationKind::Delete, 1, 6), op(swap(None, "b"), 2, 7)];
    assert!(explained(&removed));
    // Nothing was there to remove.
    assert!(!explained(&[op(OperationKind::Delete, 0, 1)]));
    let maybe = [op(write("a"), 0, 1), op(OperationKind::Delete, 2, None), op(read(None), 8, 9)];
    assert!(explained(&maybe));
}

/// Tries every order: right by construction, and hopeless for more than a few operations.
fn brute(left: &[Operation], value: Option<&str>) -> bool {
    let Some(horizon) = left.iter().filter_map(|operation| operation.returned).min() else {
        return true;
    };
    (0..left.len()).any(|index| {
        let mut rest = left.to_vec();
        let next = rest.remove(index);
        if next.invoked > horizon {
            return false;
        }
        match &next.kind {
            OperationKind::Write(new) => brute(&rest, Some(new)),
            OperationKind::Delete => value.is_some() && brute(&rest, None),
            OperationKind::Swap { from, to } => from.as_deref() == value && brute(&rest, Some(to)),
            OperationKind::Differs(other) => other.as_deref() != value && brute(&rest, value),
            OperationKind::Read(seen) => seen.as_deref() == value && brute(&rest, value),
        }
    })
}

/// A history of reads and writes, or of everything.
fn random_history(random: &mut StdRng, plain: bool) -> Vec<Operation> {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let count = random.random_range(4..=7_usize);
    // Times without ties: what is at the same time is decided differently, and either is right.
    let mut times: Vec<i64> = (0..2 * count as i64).collect();
    let mut take = |random: &mut StdRng| times.remove(random.random_range(0..times.len()));
    let mut history = Vec::new();
    for index in 0..count {
        let (one, two) = (take(random), take(random));
        let (invoked, returned) = (one.min(two), one.max(two));
        let any = NAMES.get(random.random_range(0..4_usize)).copied();
        let kind = match (NAMES.get(index), random.random_range(0..10)) {
            (Some(name), roll) if plain || roll < 7 => write(name),
            (Some(name), _) => swap(any.filter(|any| any != name), name),
            (None, roll) if plain || roll < 6 => read(any),
            (None, 6 | 7) => OperationKind::Delete,
            (None, _) => differs(any),
        };
        let looks = matches!(kind, OperationKind::Read(_) | OperationKind::Differs(_));
        let open = !looks && random.random_bool(0.25);
        history.push(op(kind, invoked, (!open).then_some(returned)));
    }
    history
}

#[test]
fn it_agrees_with_a_search_over_all_orders() {
    let mut random = StdRng::seed_from_u64(1);
    for plain in [true, false] {
        let mut found = [0_u32; 2];
        for _ in 0..20_000 {
            let history = random_history(&mut random, plain);
            let sure = brute(&history, None);
            assert_eq!(explained(&history), sure, "{history:#?}");
            if plain {
                assert!(is_register(&history));
                assert_eq!(check_register(&history).is_ok(), sure, "{history:#?}");
            }
            found[usize::from(sure)] += 1;
        }
        assert!(found.iter().all(|count| *count > 2_000), "both kinds were tried: {found:?}");
    }
}

#[test]
fn what_is_left_of_a_contradiction_is_one_and_cannot_do_without_any_read() {
    let mut random = StdRng::seed_from_u64(2);
    let mut found = 0;
    for number in 0..6_000 {
        let history = random_history(&mut random, number % 2 == 0);
        if !matches!(explain(&history, SearchLimits::default()), Ok(Explained::No)) {
            continue;
        }
        found += 1;
        let part = shrink(&history);
        assert!(part.len() <= history.len());
        assert!(!brute(&part, None), "{part:#?} of {history:#?}");
        for (index, operation) in part.iter().enumerate() {
            if operation.only_looks() {
                let mut less = part.clone();
                less.remove(index);
                assert!(brute(&less, None), "{index} of {part:#?}");
            }
        }
    }
    assert!(found > 500, "{found}");
}

/// What a real run leaves: many clients, answers that were lost, an order behind it all.
fn long_history(random: &mut StdRng, operations: usize, lost: f64) -> Vec<Operation> {
    let mut history = Vec::new();
    let mut value: Option<String> = None;
    let mut clock = 0_i64;
    for number in 0..operations {
        clock += 100;
        let (before, after) = (random.random_range(1..1_500), random.random_range(1..1_500));
        let (invoked, returned) = (clock - before, clock + after);
        let replica = format!("replica {}", number % 3);
        if random.random_bool(0.5) {
            let new = format!("sha256:{number:064x}");
            let unknown = random.random_bool(lost);
            // Of those of unknown outcome, half have happened.
            if !unknown || random.random_bool(0.5) {
                value = Some(new.clone());
            }
            history.push(op(write(&new), invoked, (!unknown).then_some(returned)).at(replica));
        } else {
            history.push(op(OperationKind::Read(value.clone()), invoked, returned).at(replica));
        }
    }
    history
}

#[test]
fn long_histories_are_decided_and_one_wrong_read_in_them_is_shown() {
    let mut random = StdRng::seed_from_u64(3);
    for lost in [0.0, 0.2] {
        let mut history = long_history(&mut random, 20_000, lost);
        assert_eq!(check_history(&history, SearchLimits::default()), Ok(Explained::Yes));
        // A read in the middle sees what was overwritten long before.
        let old = history[8_000..].iter().find(|old| matches!(&old.kind, OperationKind::Read(_)));
        let old = old.cloned().unwrap();
        let late = 12_000 * 100;
        let seen = old.kind.clone();
        history.push(op(seen, late, late + 10).at("replica 1"));
        let reason = check_history(&history, SearchLimits::default()).unwrap_err();
        let lines = reason.lines().count();
        assert!(lines <= 6, "{reason}");
        assert!(reason.contains("replica 1  read"), "{reason}");
    }
}

/// The same with all kinds of operations: there is an order behind it, so one is to be found.
fn long_mixed_history(random: &mut StdRng, operations: usize, lost: f64) -> Vec<Operation> {
    let mut history = Vec::new();
    let mut values: Vec<Option<String>> = vec![None];
    for number in 0..operations {
        let value = values.last().cloned().flatten();
        let clock = 100 * (number as i64 + 1);
        let (before, after) = (random.random_range(1..1_500), random.random_range(1..1_500));
        let new = format!("sha256:{number:064x}");
        let (kind, next) = match random.random_range(0..20) {
            0..8 => (OperationKind::Write(new.clone()), Some(Some(new))),
            8..16 => (OperationKind::Read(value.clone()), None),
            16..19 => {
                // What somebody has seen, which is what is there, or was.
                let back = random.random_range(0..values.len().min(3));
                let from = values.get(values.len() - 1 - back).cloned().flatten();
                let fits = from == value;
                let swap = OperationKind::Swap { from: from.clone(), to: new.clone() };
                let unknown = random.random_bool(lost);
                if unknown {
                    let happens = fits && random.random_bool(0.5);
                    if happens {
                        values.push(Some(new));
                    }
                    history.push(op(swap, clock - before, None));
                    continue;
                }
                if fits { (swap, Some(Some(new))) } else { (OperationKind::Differs(from), None) }
            }
            _ if value.is_some() => (OperationKind::Delete, Some(None)),
            _ => (OperationKind::Read(None), None),
        };
        let changes = next.is_some();
        let unknown = changes && random.random_bool(lost);
        if let Some(next) = next
            && (!unknown || random.random_bool(0.5))
        {
            values.push(next);
        }
        history.push(op(kind, clock - before, (!unknown).then_some(clock + after)));
    }
    history
}

#[test]
fn long_histories_of_all_kinds_that_have_an_order_are_explained() {
    let mut random = StdRng::seed_from_u64(4);
    let mut unsure = 0;
    for round in 0..60 {
        let history = long_mixed_history(&mut random, 600, [0.0, 0.01, 0.03][round % 3]);
        match explain(&history, SearchLimits::default()).unwrap() {
            Explained::Yes => {}
            Explained::No => panic!("round {round}"),
            Explained::Unsure(_) => unsure += 1,
        }
    }
    assert!(unsure <= 3, "{unsure} were given up");
}

#[test]
fn a_search_that_is_too_long_says_so() {
    let mut history: Vec<Operation> =
        (0..40).map(|number| op(write(&format!("v{number}")), number, 1_000 + number)).collect();
    history.push(op(differs(Some("v0")), 2_000, 2_001));
    history.push(op(read("v39"), 3_000, 3_001));
    history.push(op(read("v38"), 3_002, 3_003));
    let limits = SearchLimits { places: 500, time: Duration::from_secs(10) };
    let said = explain(&history, limits).unwrap();
    assert!(matches!(said, Explained::Unsure(_)), "{said:?}");
}
