//! The simulation over fixed seeds, twice over the same ones, and with broken rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tercet_simulation::{Counts, Mutation, Options, Verdict, simulate};

/// Seeds of the ordinary run, and after how long it ends with fewer of them.
const SEEDS: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(25);
/// But not with fewer than these, which say nothing, however slow the machine.
const SEEDS_MIN: u64 = 40;
/// Operations that were acknowledged, in one seed on average.
const ACKNOWLEDGED_MIN: u64 = 10;
/// Seeds that are run twice.
const REPEATED: u64 = 50;

/// One run at a time, so that each has all processors.
static TURN: Mutex<()> = Mutex::new(());

/// Runs seeds on all processors, until one satisfies `stop`; those from `least` on only while there is time.
fn run(
    from: u64,
    least: u64,
    seeds: u64,
    options: Options,
    stop: impl Fn(&Verdict) -> bool + Sync,
) -> Vec<Verdict> {
    let (next, end) = (AtomicU64::new(0), Instant::now() + PATIENCE);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds || (number >= least && Instant::now() >= end) {
                        return;
                    }
                    let verdict = simulate(from + number, &options);
                    if stop(&verdict) {
                        next.store(seeds, Ordering::Relaxed);
                    }
                    verdicts.lock().unwrap().push(verdict);
                }
            });
        }
    });
    verdicts.into_inner().unwrap()
}

#[test]
fn fixed_seeds_hold() {
    let _turn = TURN.lock();
    let began = Instant::now();
    let verdicts = run(1, SEEDS_MIN, SEEDS, Options::default(), |_| false);
    let mut counts = Counts::default();
    for verdict in &verdicts {
        assert!(
            verdict.violations.is_empty(),
            "seed {}: {:?}; look at it with: tercet-simulation --replay {}",
            verdict.seed,
            verdict.violations,
            verdict.seed
        );
        counts.add(&verdict.counts);
    }
    let per_minute = verdicts.len() as f64 * 60.0 / began.elapsed().as_secs_f64();
    println!("{} seeds held, {per_minute:.0} a minute: {counts:?}", verdicts.len());
    assert!(verdicts.len() as u64 >= SEEDS_MIN, "only {} seeds", verdicts.len());
    assert_eq!(counts.unjudged, 0, "tags had too many operations to be judged: {counts:?}");
    let enough = verdicts.len() as u64 * ACKNOWLEDGED_MIN;
    assert!(counts.acknowledged >= enough, "little was acknowledged: {counts:?}");
    for (what, count) in [
        ("faults", counts.faults),
        ("replaced disks", counts.replaced),
        ("blobs fetched", counts.repaired),
        ("blobs collected", counts.collected),
        ("operations on tags judged", counts.judged),
        ("images kept", counts.kept),
    ] {
        assert!(count > 0, "no {what}: {counts:?}");
    }
}

#[test]
fn a_seed_repeats_itself() {
    let _turn = TURN.lock();
    let from = 1_000_000;
    let mut first = run(from, REPEATED, REPEATED, Options::default(), |_| false);
    // In another order and on other threads.
    let mut second = run(from, REPEATED, REPEATED, Options::default(), |_| false);
    first.sort_by_key(|verdict| verdict.seed);
    second.sort_by_key(|verdict| verdict.seed);
    assert_eq!(first.len() as u64, REPEATED);
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(
            (one.seed, one.trace_hash, one.events, one.elapsed, &one.violations),
            (other.seed, other.trace_hash, other.events, other.elapsed, &other.violations),
            "seed {} does not repeat itself{}",
            one.seed,
            first_difference(one.seed)
        );
    }
}

/// The first event in which two runs of a seed differ, if two more runs differ as well.
fn first_difference(seed: u64) -> String {
    let options = Options { keep_trace: true, ..Options::default() };
    let (one, other) = (simulate(seed, &options).trace, simulate(seed, &options).trace);
    let differs = one.iter().zip(&other).find(|(one, other)| one != other);
    differs.map_or_else(String::new, |(one, other)| format!(":\n  {one}\n  {other}"))
}

/// A broken rule is noticed within that many seeds, however long they take.
fn is_found(mutation: Mutation, seeds: u64) {
    let _turn = TURN.lock();
    let options = Options { mutation: Some(mutation), ..Options::default() };
    let verdicts = run(1, seeds, seeds, options, |verdict| !verdict.violations.is_empty());
    let found = verdicts.iter().filter(|verdict| !verdict.violations.is_empty());
    let Some(found) = found.min_by_key(|verdict| verdict.seed) else {
        panic!("{mutation:?} was not noticed in {} seeds", verdicts.len());
    };
    println!("{mutation:?}: seed {}: {}", found.seed, found.violations[0]);
}

#[test]
fn entries_that_are_confirmed_before_they_are_synced_are_noticed() {
    is_found(Mutation::AckBeforeFsync, 200);
}

#[test]
fn a_vote_that_is_forgotten_is_noticed() {
    is_found(Mutation::VoteNotPersisted, 20);
}

#[test]
fn a_copy_too_few_is_noticed() {
    is_found(Mutation::AckTooEarly, 200);
}

#[test]
fn a_read_without_its_barrier_is_noticed() {
    is_found(Mutation::SkipReadBarrier, 20);
}

#[test]
fn an_id_that_is_used_again_is_noticed() {
    is_found(Mutation::ReuseNodeId, 20);
}

#[test]
fn a_file_that_is_removed_without_a_second_look_is_noticed() {
    is_found(Mutation::CollectWithoutRecheck, 400);
}

#[test]
fn an_acknowledgement_before_the_commit_is_noticed() {
    is_found(Mutation::AckBeforeCommit, 100);
}
