//! From a scenario to its report.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Length, Namespaces, Scenario,
    faults::Span,
    run::{HEAL_DEADLINE, Run},
};
use crate::{
    binary::Binary,
    not_shown::{NotShown, is_not_shown},
    planted,
    report::{Report, Verdict, judge, reason},
    say::say,
    timeline::{Band, Timeline},
    tools::Tool,
};

/// Of the bands in a report: a run of hours may have more faults than anybody can tell apart.
const BANDS_MAX: usize = 4_000;

/// Runs a scenario on loopback to its verdict. Whatever goes wrong is in the report.
pub async fn execute(scenario: &Scenario, seed: u64, length: Length) -> Report {
    execute_within(scenario, seed, length, HEAL_DEADLINE, Namespaces::default()).await
}

/// The same, with another T (I5): so long after the healing all replicas hold everything. This process has these namespaces
/// for itself; one that the scenario cannot do without and that is not there makes the run void.
pub async fn execute_within(
    scenario: &Scenario,
    seed: u64,
    length: Length,
    replication_max: Duration,
    namespaces: Namespaces,
) -> Report {
    let start = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    say(&format!("{}, seed {seed}, {}: {}", scenario.name, length.word(), scenario.hypothesis));
    say(&format!("  fault: {}", scenario.fault));
    for invariant in scenario.invariants {
        say(&format!("  {invariant}: {}", invariant.words()));
    }
    let mut run = Run::new(scenario.invariants, seed, length, replication_max, namespaces);
    run.figure("replicas", namespaces.homes());
    if let Some(bug) = planted::bug() {
        say(&format!("  THE REPLICAS HAVE A PLANTED BUG: {bug}"));
        run.figure("planted bug", bug);
    }
    let ledger = run.ledger.clone();
    let mut interrupted = None;
    let ended = tokio::select! {
        ended = play(scenario, &mut run) => ended,
        () = planted::broken(&ledger) => Ok(()),
        name = told_to_stop() => {
            interrupted = Some(format!("interrupted by {name} before the last checks"));
            Ok(())
        }
    };
    if interrupted.is_some() {
        run.check_histories();
    }
    let mut reasons: Vec<String> =
        run.ledger.violations().iter().map(|(invariant, what)| reason(*invariant, what)).collect();
    if let Err(error) = &ended {
        reasons.push(format!("{error:#}"));
    }
    let mut verdict = if reasons.is_empty() { Verdict::Held } else { Verdict::Violated };
    // Without a cluster nothing was shown, however the attempt to make one ended; nor by a failure that is not the
    // registry's, unless a promise was broken beside it.
    let not_shown = ended.as_ref().is_err_and(is_not_shown) && run.ledger.violations().is_empty();
    if verdict == Verdict::Violated && (!run.began() || not_shown) {
        verdict = Verdict::Void;
    }
    let rate = run.acknowledged_per_second();
    if verdict == Verdict::Held {
        reasons = interrupted.map_or_else(|| voids(scenario, &run, rate), |what| vec![what]);
        if !reasons.is_empty() {
            verdict = Verdict::Void;
        }
    }
    // Whatever else was checked is worth telling too.
    let mut invariants = run.ledger.all_checked();
    invariants.extend(scenario.invariants);
    let invariants: Vec<_> = invariants.into_iter().collect();
    let mut report = Report {
        scenario: scenario.name.to_owned(),
        rows: scenario.rows.to_vec(),
        hypothesis: scenario.hypothesis.to_owned(),
        fault: scenario.fault.to_owned(),
        seed,
        length: length.word().to_owned(),
        version: version().await,
        started_unix_s: started.as_secs(),
        verdict,
        reasons,
        invariants: judge(&invariants, &run.ledger.violations(), verdict),
        operations: run.ledger.counts(),
        faults: run.faults.counts().clone(),
        acknowledged_per_second: rate,
        tags_checked: run.tags_checked.0,
        tag_operations: run.tags_checked.1,
        checked_pulls: run.checked_pulls,
        full_replication_ms: run.full_replication.map(milliseconds),
        resumed_ms: run.resumed.iter().copied().map(milliseconds).collect(),
        longest_pause_ms: milliseconds(run.ledger.longest_pause()),
        figures: run.figures.clone(),
        events: run.faults.events().to_vec(),
        timeline: timeline(&run),
        seconds: 0.0,
    };
    if verdict != Verdict::Held {
        // Prints the ends of the replicas' logs, unless they have stopped well.
        drop(run);
    }
    report.seconds = start.elapsed().as_secs_f64();
    report
}

async fn play(scenario: &Scenario, run: &mut Run) -> Result<()> {
    if let Some(why) = scenario.needs.missing(run.namespaces) {
        return Err(NotShown(why.to_owned()).into());
    }
    let mut ended = (scenario.body)(run).await;
    if ended.is_ok() {
        ended = run.settle().await;
    }
    if ended.is_err() {
        run.salvage().await;
    }
    ended
}

/// Waits for Ctrl-C or SIGTERM, and says which it was. What the run has learned so far is still reported.
async fn told_to_stop() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Then the signals end the process, as they always do.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// What was recorded, with the faults.
fn timeline(run: &Run) -> Timeline {
    let bands = run.faults.spans().iter().take(BANDS_MAX).map(band).collect();
    Timeline { bands, ..run.ledger.recorder().timeline() }
}

fn band(span: &Span) -> Band {
    Band {
        kind: span.kind.clone(),
        what: span.what.clone(),
        start_ms: milliseconds(span.start),
        end_ms: span.end.map(milliseconds),
    }
}

/// Why a run in which nothing was broken shows nothing.
fn voids(scenario: &Scenario, run: &Run, rate: f64) -> Vec<String> {
    let counts = run.faults.counts();
    let mut reasons: Vec<String> = scenario
        .fires
        .iter()
        .filter(|kind| !counts.contains_key(**kind))
        .map(|kind| format!("the fault `{kind}` never happened"))
        .collect();
    let checked = run.ledger.all_checked();
    reasons.extend(
        scenario
            .invariants
            .iter()
            .filter(|invariant| !checked.contains(invariant))
            .map(|invariant| format!("{invariant} was not judged to the end")),
    );
    if rate < scenario.floor_per_second {
        reasons.push(format!(
            "{rate:.1} acknowledged operations per second are fewer than {}",
            scenario.floor_per_second
        ));
    }
    reasons
}

async fn version() -> String {
    let said = match Binary::locate() {
        Ok(binary) => Tool::at(binary.path()).run(&["--version"]).await,
        Err(error) => Err(error),
    };
    said.map_or_else(
        |error| format!("unknown: {error:#}"),
        |output| output.stdout.trim().to_owned(),
    )
}

pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
