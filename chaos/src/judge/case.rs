//! One mutation before the judge: found or missed, and whether the same run holds without it.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{
    mutation::Mutation,
    trial::{Ended, Trial},
};
use crate::{planted, report::Verdict, scenario::milliseconds};

/// Whether the run without the bug is part of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It is run, and must hold.
    Run,
    /// It is left out: the scenarios' own tests are that run.
    Skip,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The scenario found the bug, and holds without it.
    Caught {
        /// The invariant that it says is broken.
        by: String,
        /// What it saw.
        what: String,
    },
    /// It did not find the bug.
    Missed {
        /// What each run said.
        said: Vec<String>,
    },
    /// It does not hold without the bug either, or says nothing: then finding the bug says nothing.
    Unsound {
        /// Why.
        reasons: Vec<String>,
    },
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The bug.
    pub bug: String,
    /// What the registry does wrong with it.
    pub breaks: String,
    /// Who had to find it.
    pub scenario: String,
    /// The seed of the last try.
    pub seed: u64,
    /// How many runs it took.
    pub tries: usize,
    /// From the start of the first run to the verdict, in milliseconds.
    pub catch_ms: u64,
    /// How long the run without the bug took, if there was one.
    pub control_ms: Option<u64>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Case {
    /// Whether the judge has stood the test.
    pub fn is_caught(&self) -> bool {
        matches!(self.outcome, Outcome::Caught { .. })
    }
}

/// Plants a bug and lets its scenario look for it, with `seed` and those that follow.
///
/// # Errors
/// When a run cannot be started or its report not be read: that says nothing about the judge.
pub async fn judge(
    mutation: &Mutation,
    seed: u64,
    control: Control,
    folder: &Path,
) -> Result<Case> {
    planted::check_program()?;
    let mut case = Case {
        bug: mutation.bug.to_owned(),
        breaks: mutation.breaks.to_owned(),
        scenario: mutation.scenario.to_owned(),
        seed,
        tries: 0,
        catch_ms: 0,
        control_ms: None,
        outcome: Outcome::Missed { said: Vec::new() },
    };
    let mut missed = Vec::new();
    for seed in (0..mutation.seeds).map(|number| seed.wrapping_add(number)) {
        (case.seed, case.tries) = (seed, case.tries + 1);
        let trial = Trial {
            scenario: mutation.scenario,
            seed,
            bug: Some(mutation.bug),
            until: mutation.expected,
            folder: &folder.join(mutation.bug).join("planted"),
        };
        println!("{}: {} with seed {seed}", mutation.bug, mutation.scenario);
        let ended = trial.run().await?;
        case.catch_ms += milliseconds(ended.time);
        if let Some((invariant, what)) = ended.broke(mutation.expected) {
            println!("  caught by {invariant} after {:.1} s: {what}", ended.time.as_secs_f64());
            case.outcome = Outcome::Caught { by: invariant.to_string(), what: what.to_owned() };
            break;
        }
        let said = describe(&ended);
        println!("  not caught: {said}\n{}", ended.tail());
        missed.push(said);
        case.outcome = Outcome::Missed { said: missed.clone() };
    }
    if case.is_caught() && control == Control::Run {
        hold_without(mutation, &mut case, folder).await?;
    }
    Ok(case)
}

/// The same run without the bug.
async fn hold_without(mutation: &Mutation, case: &mut Case, folder: &Path) -> Result<()> {
    let trial = Trial {
        scenario: mutation.scenario,
        seed: case.seed,
        bug: None,
        until: &[],
        folder: &folder.join(mutation.bug).join("without"),
    };
    println!("  without the bug: {} with seed {}", mutation.scenario, case.seed);
    let ended = trial.run().await?;
    case.control_ms = Some(milliseconds(ended.time));
    println!("  {}", describe(&ended));
    if ended.verdict != Verdict::Held {
        println!("{}", ended.tail());
        case.outcome = Outcome::Unsound { reasons: ended.reasons };
    }
    Ok(())
}

fn describe(ended: &Ended) -> String {
    let (verdict, seconds) = (ended.verdict.word(), ended.time.as_secs_f64());
    let reasons = ended.reasons.join("; ");
    if reasons.is_empty() {
        format!("{verdict} after {seconds:.1} s")
    } else {
        format!("{verdict} after {seconds:.1} s: {reasons}")
    }
}
