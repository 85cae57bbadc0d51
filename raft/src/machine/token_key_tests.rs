#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::super::bench::Bench;
use super::*;
use crate::command::{Command, Proposal};

const KEEP_MS: u64 = 1000;

fn rotate(expected: Option<&str>, id: &str) -> Command {
    Command::RotateTokenKey {
        expected: expected.map(ToOwned::to_owned),
        key_id: id.to_owned(),
        secret: secret(id),
        keep_ms: KEEP_MS,
    }
}

fn secret(id: &str) -> Secret {
    Secret::new([id.len() as u8; 32])
}

fn ids(bench: &Bench) -> Vec<String> {
    bench.meta().token_keys().unwrap().into_iter().map(|key| key.id).collect()
}

const LOST: Outcome = Outcome::ConditionFailed { current: None };

#[test]
fn the_first_key_expects_none_and_each_next_one_the_newest() {
    let bench = Bench::new();
    assert_eq!(bench.apply_at(5, rotate(Some("a"), "b")), LOST);
    assert!(ids(&bench).is_empty());
    assert_eq!(bench.apply_at(5, rotate(None, "a")), Outcome::Done);
    assert_eq!(bench.apply_at(6, rotate(Some("a"), "bb")), Outcome::Done);
    let key = |id: &str, created_ms| TokenKey { id: id.into(), secret: secret(id), created_ms };
    assert_eq!(bench.meta().token_keys().unwrap(), [key("a", 5), key("bb", 6)]);
    assert_eq!(bench.apply_at(7, rotate(Some("a"), "c")), LOST);
    assert_eq!(ids(&bench), ["a", "bb"]);
}

#[test]
fn of_two_leaders_that_race_one_wins_wherever_the_batches_are_cut() {
    let race = || ["x", "y"].map(|id| Proposal { at_ms: 1, command: rotate(None, id) }).to_vec();
    let (together, apart) = (Bench::new(), Bench::new());
    assert_eq!(together.apply_all(race()), [Outcome::Done, LOST]);
    for (proposal, expected) in race().into_iter().zip([Outcome::Done, LOST]) {
        assert_eq!(apart.apply_at(proposal.at_ms, proposal.command), expected);
    }
    assert_eq!(ids(&together), ["x"]);
    assert_eq!(together.everything(), apart.everything());
}

#[test]
fn a_command_that_comes_twice_adds_one_key_and_an_id_is_never_given_twice() {
    let bench = Bench::new();
    for _ in 0..2 {
        assert_eq!(bench.apply_at(1, rotate(None, "a")), Outcome::Done);
    }
    assert_eq!(ids(&bench), ["a"]);
    let command = Command::RotateTokenKey {
        expected: Some("a".to_owned()),
        key_id: "a".to_owned(),
        secret: Secret::new([9; 32]),
        keep_ms: KEEP_MS,
    };
    assert!(matches!(bench.apply(command), Outcome::Refused(_)));
    for id in [String::new(), "k".repeat(KEY_ID_BYTES_MAX + 1)] {
        assert!(matches!(bench.apply(rotate(Some("a"), &id)), Outcome::Refused(_)));
    }
    assert_eq!(ids(&bench), ["a"]);
}

#[test]
fn a_key_goes_when_its_successor_is_older_than_any_token() {
    let bench = Bench::new();
    bench.apply_at(10_000, rotate(None, "a"));
    bench.apply_at(20_000, rotate(Some("a"), "b"));
    // `b` has existed for exactly as long as a token of `a` may: `a` stays once more.
    bench.apply_at(20_000 + KEEP_MS, rotate(Some("b"), "c"));
    assert_eq!(ids(&bench), ["a", "b", "c"]);
    bench.apply_at(20_001 + KEEP_MS, rotate(Some("c"), "d"));
    assert_eq!(ids(&bench), ["b", "c", "d"]);
    bench.apply_at(90_000, rotate(Some("d"), "e"));
    assert_eq!(ids(&bench), ["d", "e"]);
}

/// A leader whose clock was years ahead must not make the others' keys stay for years.
#[test]
fn clocks_that_disagree_leave_no_key_behind_and_drop_none_too_early() {
    let bench = Bench::new();
    bench.apply_at(10_000, rotate(None, "a"));
    bench.apply_at(9_000_000, rotate(Some("a"), "ahead"));
    bench.apply_at(10_500, rotate(Some("ahead"), "b"));
    assert_eq!(ids(&bench), ["a", "ahead", "b"]);
    bench.apply_at(20_000, rotate(Some("b"), "c"));
    assert_eq!(ids(&bench), ["b", "c"]);
}

#[test]
fn at_most_eight_keys_are_kept() {
    let bench = Bench::new();
    let mut newest: Option<String> = None;
    for n in 0..12 {
        let id = format!("k{n}");
        assert_eq!(bench.apply_at(1, rotate(newest.as_deref(), &id)), Outcome::Done);
        newest = Some(id);
    }
    assert_eq!(ids(&bench), ["k4", "k5", "k6", "k7", "k8", "k9", "k10", "k11"]);
}

#[test]
fn nothing_that_is_printed_holds_the_secret() {
    let secret = Secret::new([0xd7; 32]);
    let command = Command::RotateTokenKey {
        expected: None,
        key_id: "k1".to_owned(),
        secret,
        keep_ms: KEEP_MS,
    };
    let proposal = Proposal { at_ms: 1, command };
    let bench = Bench::new();
    let outcome = bench.apply_all(vec![proposal.clone()]).remove(0);
    let keys = bench.meta().token_keys().unwrap();
    let printed = format!("{proposal:?} {proposal:#?} {proposal} {outcome:?} {outcome} {keys:?}");
    assert!(printed.contains("k1") && printed.contains("<secret>"), "{printed}");
    assert!(!printed.contains("215") && !printed.contains("d7"), "{printed}");
}
