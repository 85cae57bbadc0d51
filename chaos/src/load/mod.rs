//! `load`: how fast a registry is, or anything else that speaks HTTP/1.1.
//!
//! The instrument has to be faster than what it measures, which may be nginx on the same two cores. So it has a
//! client of its own: connections that are kept, requests that are ready, one buffer for each thread into which
//! everything is read, and bodies that are counted and not kept. What is measured, and how, is in
//! `docs/src/load.md`.

mod answer;
mod chunks;
mod connection;
mod content;
mod cpu;
mod crew;
mod endpoint;
mod failure;
mod head;
mod operation;
mod options;
mod phase;
mod plan;
mod progress;
mod record;
mod report;
mod site;
mod table;
mod tally;
mod timer;
mod wire;

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Resource, getrlimit, setrlimit};

pub(crate) use connection::within;
pub(crate) use failure::Failure;
pub use options::{Bodies, LoadOptions, LoadTarget, Mix, Pace, PushUnit, Rest, Source, Workload};
pub(crate) use record::Record;
pub use report::{Figures, KindFigures, LoadReport, Round, StormFigures};
pub(crate) use table::digits;
pub use tally::Quantiles;

use crate::say::warn;
use crew::{Measured, measure};
use plan::Plan;
use progress::Progress;
use report::settings;
use site::{Site, make_image, prepare};

/// Measures all targets, one after the other. In each round another one begins, so that none of them always has the
/// machine as another one has left it.
///
/// # Errors
/// If the options make no sense, a target cannot be prepared, or the machine has no room for so many clients. What goes
/// wrong with requests is in the report.
pub fn load(options: LoadOptions) -> Result<LoadReport> {
    if let Some(problem) = options.problem() {
        return Err(anyhow!(problem));
    }
    raise_descriptor_limit();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let sites = prepare_all(&options)?;
    let plan = Arc::new(Plan::new(options));
    let options = &plan.options;
    let mut results: Vec<Results> = options.targets.iter().map(|_| Results::default()).collect();
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        for turn in 0..options.targets.len() {
            let index = (round + turn) % options.targets.len().max(1);
            let target = options.targets.get(index).zip(sites.get(index));
            let ((target, sites), results) =
                target.zip(results.get_mut(index)).context("a target has a number")?;
            if options.rest == Rest::Synced {
                rustix::fs::sync();
            }
            let what =
                format!("{} of {}, round {}", options.workload.word(), target.name, round + 1);
            let result = one_round(&plan, target, sites, &Progress::new(what))?;
            rounds.push(Round { round: round + 1, figures: result.figures(target)? });
            results.add(result);
        }
    }
    let targets = options.targets.iter().zip(&results);
    Ok(LoadReport {
        workload: options.workload,
        seed: options.seed,
        started_unix_s: started.as_secs(),
        settings: settings(options),
        targets: targets.map(|(target, results)| results.figures(target)).collect::<Result<_>>()?,
        rounds,
    })
}

/// What was measured of one target.
#[derive(Default)]
struct Results {
    measured: Vec<Measured>,
    storms: Vec<StormFigures>,
}

impl Results {
    fn add(&mut self, other: Self) {
        self.measured.extend(other.measured);
        self.storms.extend(other.storms);
    }

    fn figures(&self, target: &LoadTarget) -> Result<Figures> {
        let figures = Figures::of(target, &self.measured)?;
        Ok(Figures { storms: self.storms.clone(), ..figures })
    }
}

/// One measurement, or as many storms as there is time for.
fn one_round(
    plan: &Arc<Plan>,
    target: &LoadTarget,
    sites: &[Arc<Site>],
    progress: &Progress,
) -> Result<Results> {
    let options = &plan.options;
    let mut results = Results::default();
    if options.workload != Workload::Storm {
        results.measured.push(measure(plan, target, sites, progress)?);
        return Ok(results);
    }
    if !options.warm_up.is_zero() {
        measure(plan, target, sites, progress)?;
    }
    let start = Instant::now();
    let most = options.operations_max.unwrap_or(1);
    while (results.measured.len() as u64) < most && start.elapsed() < options.time {
        let measured = measure(plan, target, sites, progress)?;
        results.storms.push(StormFigures::of(&measured)?);
        results.measured.push(measured);
    }
    Ok(results)
}

/// The servers of each target.
fn prepare_all(options: &LoadOptions) -> Result<Vec<Vec<Arc<Site>>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let image = make_image(options);
    let mut sites = Vec::new();
    for target in &options.targets {
        let prepared = runtime.block_on(prepare(options, target, image.as_ref()));
        sites.push(prepared.with_context(|| format!("prepare {}", target.name))?);
    }
    Ok(sites)
}

/// The usual soft limit of 1,024 is less than a storm needs.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn(&format!("cannot raise the limit of open files: {error}"));
    }
}
