//! Runs seeds and says which of them failed.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tercet_simulation::{Counts, Mutation, Options, simulate};

/// Runs the group and the repair of Tercet on a simulated network, seed by seed.
#[derive(Debug, Parser)]
#[command(name = "tercet-simulation")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Stop after this many seconds, whatever is left.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run this one seed and print everything that happens.
    #[arg(long)]
    replay: Option<u64>,
    /// How many seeds to run at a time; by default as many as there are processors.
    #[arg(long)]
    jobs: Option<usize>,
    /// Break a rule, to see whether it is noticed.
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
}

/// Held, violated, wrong use.
const VIOLATED: u8 = 1;
const WRONG_USE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(WRONG_USE) } else { ExitCode::SUCCESS };
        }
    };
    match arguments.replay {
        Some(seed) => replay(seed, &arguments),
        None => run(&arguments),
    }
}

fn replay(seed: u64, arguments: &Arguments) -> ExitCode {
    let options = Options { mutation: arguments.mutation, keep_trace: true, ..Options::default() };
    let verdict = simulate(seed, &options);
    for line in &verdict.trace {
        println!("{line}");
    }
    println!("seed {seed}: {} events, trace {:016x}", verdict.events, verdict.trace_hash);
    println!("{:?}", verdict.counts);
    for violation in &verdict.violations {
        println!("VIOLATED: {violation}");
    }
    if verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) }
}

fn run(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let end = arguments.seconds.map(|seconds| began + Duration::from_secs(seconds));
    let jobs = arguments
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let options = Options { mutation: arguments.mutation, ..Options::default() };
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let totals = Mutex::new((Counts::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let late = end.is_some_and(|end| Instant::now() >= end);
                    if number >= arguments.seeds || late {
                        return;
                    }
                    let seed = arguments.from.wrapping_add(number);
                    let verdict = simulate(seed, &options);
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut totals =
                        totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    totals.0.add(&verdict.counts);
                    if let Some(violation) = verdict.violations.first() {
                        println!("seed {seed} VIOLATED: {violation}");
                        totals.1.push(seed);
                    }
                }
            });
        }
    });
    let (counts, mut failed) =
        totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.sort_unstable();
    let (done, took) = (done.into_inner(), began.elapsed());
    let per_minute = done as f64 * 60.0 / took.as_secs_f64().max(0.001);
    println!("{done} seeds from {} in {took:.1?}, {per_minute:.0} a minute", arguments.from);
    println!("{counts:?}");
    if counts.unjudged > 0 {
        println!("{} tags had too many operations to be judged", counts.unjudged);
    }
    if failed.is_empty() {
        println!("all held");
        return ExitCode::SUCCESS;
    }
    println!("{} violated: {failed:?}", failed.len());
    if let Some(seed) = failed.first() {
        println!("look at one: tercet-simulation --replay {seed}");
    }
    ExitCode::from(VIOLATED)
}
