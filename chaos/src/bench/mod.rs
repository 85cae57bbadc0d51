//! `bench`: Tercet beside its peers on this machine, in one run, and the page about it.
//!
//! Every comparison is a row. A row starts what it compares, measures all of it in turn, and holds the ratios against the
//! targets. What was measured is written down after each row, so that a run that is ended early has figures too.

mod command;
mod curve;
mod etcd_load;
mod etcd_rpc;
mod growth;
mod machine;
mod options;
mod outcome;
mod page;
mod peers;
mod plot;
mod row;
mod rows;
mod seeding;
mod series;
mod suite;
mod target;
mod unit;

use std::{
    fs,
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use tokio::runtime::{Builder, Runtime};

pub use options::{BenchOptions, Extent};
pub use suite::Suite;

use crate::{
    load::{
        Bodies, Figures, LoadOptions, LoadTarget, Mix, Pace, PushUnit, Rest, Source, Workload,
        load, raise_descriptor_limit,
    },
    report::Verdict,
    say::{say, warn},
    scratch::Scratch,
    turn::{Share, Turn},
};
use machine::{Machine, busy_cores, versions};
use outcome::Outcome;
use series::Measurement;

/// A request that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// Of the same load, before each measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// A run that is under way.
#[derive(Debug)]
pub(super) struct Bench {
    options: BenchOptions,
    /// On the main thread: what is started here ends when the thread that has started it does.
    runtime: Runtime,
}

/// Runs the benchmarks, and writes the page and everything that it is made of.
///
/// `held` if every target that was judged is met, `violated` if one is missed, `void` if a row could not be measured or
/// nothing was judged. Growth has no targets: it is `held` if every row could be measured.
///
/// # Errors
/// If the options make no sense, or nothing can be written.
pub fn bench(options: BenchOptions) -> Result<Verdict> {
    if let Some(problem) = options.problem() {
        anyhow::bail!(problem);
    }
    let suite = options.suite;
    let chosen = rows::chosen(suite, &options.rows)?;
    raise_descriptor_limit();
    let runtime =
        Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let bench = Bench { options, runtime };
    let _turn = bench.wait(Turn::take(Share::All))?;
    let mut machine = Machine::look(Scratch::new()?.path())?;
    machine.busy_cores = bench.wait(busy_cores());
    if machine.was_busy() {
        warn("this machine has other work: its figures will be worse than they could be");
    }
    let versions = bench.wait(versions());
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut run = page::Run {
        suite,
        machine,
        versions,
        command: bench.options.command(),
        commit: bench.options.commit.clone(),
        started_unix_s: started.as_secs(),
        whole: bench.options.extent == Extent::Whole,
        of_all_rows: chosen.len() == suite.rows().len(),
        outcomes: Vec::new(),
    };
    let folder = bench.options.out.join(run.name());
    empty(&folder)?;
    for row in chosen {
        say(&format!("row {}: {}", row.number, row.title));
        let start = Instant::now();
        let mut outcome = Outcome::new(row, run.whole);
        let stolen_before = stolen();
        if let Err(error) = (row.body)(&bench, &mut outcome) {
            warn(&format!("row {} failed: {error:#}", row.number));
            outcome.failed = Some(format!("{error:#}"));
        }
        outcome.seconds = start.elapsed().as_secs_f64();
        if let (Some((stolen_before, before)), Some((stolen, now))) = (stolen_before, stolen()) {
            outcome.stolen = Some((stolen - stolen_before) / (now - before).max(1.0));
        }
        for judged in &outcome.targets {
            say(&format!("  {}", judged.line()));
        }
        outcome.save(&folder)?;
        run.outcomes.push(outcome);
        run.save(&bench.options.out)?;
    }
    say(&format!("page: {}.md", bench.options.out.join(run.name()).display()));
    Ok(run.verdict())
}

impl Bench {
    /// Waits for something on this thread.
    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Does nothing for so long.
    fn rest(&self, time: Duration) {
        // The timer has to be made inside the runtime.
        self.wait(async { tokio::time::sleep(time).await });
    }

    /// The first in a whole run, the second in a quick one.
    fn pick<T>(&self, whole: T, quick: T) -> T {
        match self.options.extent {
            Extent::Whole => whole,
            Extent::Quick => quick,
        }
    }

    /// An error in a whole run, where figures count, unless something is so.
    fn insist(&self, is_so: bool, otherwise: &str) -> Result<()> {
        ensure!(is_so || self.options.extent == Extent::Quick, "{otherwise}");
        Ok(())
    }

    /// A load of these servers, to be changed where it is another one.
    fn load(&self, workload: Workload, targets: Vec<LoadTarget>) -> LoadOptions {
        LoadOptions {
            workload,
            targets,
            rounds: self.options.rounds,
            ca: None,
            repository: "bench/load".to_owned(),
            source: Source::Made(vec![64 << 10]),
            unit: PushUnit::Blob,
            chunk: None,
            tags: None,
            mix: Mix::default(),
            bodies: Bodies::Counted,
            pace: Pace::Closed,
            clients: 1,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            time: self.options.time,
            operations_max: None,
            warm_up: WARM_UP,
            deadline: DEADLINE,
            seed: 1,
            rest: Rest::Synced,
        }
    }

    /// Measures a case, and takes down every round of it.
    fn measure(&self, outcome: &mut Outcome, case: &str, mut options: LoadOptions) -> Result<()> {
        options.threads = options.threads.min(options.clients);
        say(&format!("  {case}"));
        let command = command::of(&options);
        let report = load(options).with_context(|| case.to_owned())?;
        for round in &report.rounds {
            refuse(case, &round.figures)?;
        }
        outcome.command(command);
        outcome.measurements.extend(report.rounds.into_iter().map(|round| Measurement {
            case: case.to_owned(),
            round: round.round,
            figures: round.figures,
        }));
        Ok(())
    }
}

/// An error unless these figures are worth something: operations, nearly all of them well, and no wrong bytes.
pub(super) fn refuse(case: &str, figures: &Figures) -> Result<()> {
    ensure!(
        figures.verdict() == Verdict::Held,
        "{case}: of {} operations of {} failed {:?}",
        figures.operations,
        figures.target,
        figures.errors
    );
    Ok(())
}

/// Jiffies of the processors that the host gave to somebody else, and all of them (proc_stat(5)).
fn stolen() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.split_whitespace().skip(1).take(8);
    let fields: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    Some((*fields.get(7)?, fields.iter().sum()))
}

/// Makes a folder, or takes the files of an earlier run out of it.
fn empty(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json" || ending == "svg") {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// A file of what is measured with, as it is shown.
fn shown(path: &Path) -> Result<Arc<str>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.into())
}
