//! From a scenario to its report.

use std::time::Instant;

use super::{
    Length, Scenario,
    report::{Report, Verdict, reason},
    run::Run,
};
use crate::{binary::Binary, tools::Tool};

/// Runs a scenario to its verdict. Whatever goes wrong is in the report.
pub async fn execute(scenario: &Scenario, seed: u64, length: Length) -> Report {
    let start = Instant::now();
    println!("{}, seed {seed}, {}: {}", scenario.name, length.word(), scenario.hypothesis);
    println!("  fault: {}", scenario.fault);
    for invariant in scenario.invariants {
        println!("  {invariant}: {}", invariant.words());
    }
    let mut run = Run::new(seed, length);
    let mut ended = (scenario.body)(&mut run).await;
    if ended.is_ok() {
        ended = run.settle().await;
    }
    let mut reasons: Vec<String> =
        run.ledger.violations().iter().map(|(invariant, what)| reason(*invariant, what)).collect();
    if let Err(error) = &ended {
        reasons.push(format!("{error:#}"));
    }
    let mut verdict = if reasons.is_empty() { Verdict::Held } else { Verdict::Violated };
    let rate = run.acknowledged_per_second();
    if verdict == Verdict::Held {
        reasons = voids(scenario, &run, rate);
        if !reasons.is_empty() {
            verdict = Verdict::Void;
        }
    }
    let mut report = Report {
        scenario: scenario.name.to_owned(),
        rows: scenario.rows.to_vec(),
        seed,
        length: length.word().to_owned(),
        version: version().await,
        verdict,
        reasons,
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
        seconds: 0.0,
    };
    if verdict != Verdict::Held {
        // Prints the ends of the replicas' logs, unless they have stopped well.
        drop(run);
    }
    report.seconds = start.elapsed().as_secs_f64();
    report
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

pub(crate) fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
