//! `tercet-chaos run`.
//!
//! Each scenario is run by a process of its own, in the namespaces that it needs; this one starts them one after the
//! other and puts their reports together.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use tercet_chaos::{
    Length, Namespaces, Needs, RunReport, Scenario, ScenarioReport, Tool, Verdict, say,
};
use tokio::{
    process::{Child, Command},
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    plan::{Next, Plan},
    wrong_use,
};

/// Where the program under test lies, if it was not built with this one.
const PROGRAM: &str = "TERCET_BIN";
/// A scenario that has no verdict after so long hangs: the others are to have their turn.
const SCENARIO_MAX: Duration = Duration::from_secs(30 * 60);
/// The same of full forms.
const SCENARIO_MAX_FULL: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    /// Which ones.
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// All of them, each with a seed of its own.
    #[arg(long)]
    all: bool,
    /// Again and again, with other seeds, for so long. The list is begun where the seed says; no scenario is begun that took
    /// longer than what is left.
    #[arg(long)]
    minutes: Option<u64>,
    /// What all random choices are drawn from; else a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// The full form: more faults, larger data, and the machine for itself.
    #[arg(long)]
    full: bool,
    /// T of convergence (I5): within so many seconds of the healing every replica holds everything.
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    replicated_within: u64,
    /// Folder for the reports: JSON, JUnit XML and a page.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Set by this program for itself: it is the process of one scenario, with these namespaces of its own.
    #[arg(long, hide = true)]
    inside: Option<Namespaces>,
}

/// Runs what was asked for.
pub(super) fn run(arguments: &RunArguments) -> Result<Verdict> {
    let scenarios = if arguments.all {
        if !arguments.names.is_empty() {
            return Err(wrong_use("either names or --all"));
        }
        tercet_chaos::scenarios()
    } else {
        arguments.names.iter().map(|name| named(name)).collect::<Result<_>>()?
    };
    let seed = arguments.seed.unwrap_or_else(tercet_chaos::new_seed);
    let runtime = Runtime::new().context("start the runtime")?;
    match (scenarios.as_slice(), arguments.inside) {
        ([scenario], Some(namespaces)) => {
            runtime.block_on(play(scenario, arguments, seed, namespaces))
        }
        _ => runtime.block_on(run_all(&scenarios, arguments, seed)),
    }
}

fn named(name: &str) -> Result<Scenario> {
    tercet_chaos::find_scenario(name).ok_or_else(|| {
        let known = tercet_chaos::scenarios();
        let names: Vec<&str> = known.iter().map(|scenario| scenario.name).collect();
        wrong_use(format!("no scenario is called {name}; there are {}", names.join(", ")))
    })
}

/// Runs one scenario in this process.
async fn play(
    scenario: &Scenario,
    arguments: &RunArguments,
    seed: u64,
    namespaces: Namespaces,
) -> Result<Verdict> {
    let length = if arguments.full { Length::Full } else { Length::Short };
    let within = Duration::from_secs(arguments.replicated_within);
    let report = tercet_chaos::execute_within(scenario, seed, length, within, namespaces).await;
    if let Some(folder) = &arguments.report {
        report.save(folder)?;
    }
    say(report.table().trim_end());
    Ok(report.verdict)
}

async fn run_all(scenarios: &[Scenario], arguments: &RunArguments, seed: u64) -> Result<Verdict> {
    let start = Instant::now();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut signals = Signals::new()?;
    // Reports come from other processes in files, also if nobody wants to keep them.
    let passing = tempfile::tempdir().context("make a temporary folder")?;
    let folder = arguments.report.as_deref().unwrap_or(passing.path());
    let budget = arguments.minutes.map(|minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let mut names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
    if budget.is_some() {
        begin_anywhere(&mut names, seed);
    }
    let mut plan = Plan::new(names, budget);
    let mut run = RunReport {
        title: title(arguments),
        seed,
        commit: commit().await,
        started_unix_s: started.as_secs(),
        ..RunReport::default()
    };
    say(&format!("{}, seed {seed}", run.title));
    let at_hand = Namespaces::at_hand();
    say(&format!("replicas are {}", at_hand.of(Needs::Nothing).homes()));
    let longest = if arguments.full { SCENARIO_MAX_FULL } else { SCENARIO_MAX };
    let mut broken = Vec::new();
    while let Some(next) = plan.next(start.elapsed()) {
        let began = Instant::now();
        let scenario = named(next.name)?;
        let its_seed = seed_of(arguments, seed, next);
        let namespaces = at_hand.of(scenario.needs);
        let mut child = start_one(&scenario, arguments, its_seed, folder, namespaces)?;
        let mut hangs = false;
        let status = tokio::select! {
            status = child.wait() => Some(status.context("wait for a scenario")?),
            () = signals.any() => {
                run.interrupted = true;
                None
            }
            () = tokio::time::sleep(longest) => {
                hangs = true;
                None
            }
        };
        let ended = match status {
            Some(status) => status,
            None => tercet_chaos::stop(&mut child).await?,
        };
        plan.ended(next.name, began.elapsed());
        let report = ScenarioReport::of_process(folder, scenario.name, its_seed, ended);
        let mut report = report.unwrap_or_else(|error| {
            broken.push(format!("{} (seed {its_seed}): {error:#}", scenario.name));
            ScenarioReport {
                scenario: scenario.name.to_owned(),
                seed: its_seed,
                reasons: vec![format!("the harness itself failed: {error:#}")],
                seconds: began.elapsed().as_secs_f64(),
                ..ScenarioReport::default()
            }
        });
        if hangs && report.verdict != Verdict::Held {
            report.reasons.push(format!("it was stopped: no verdict within {longest:?}"));
        }
        run.version.clone_from(&report.version);
        run.reports.push(report);
        if run.interrupted {
            break;
        }
    }
    run.seconds = start.elapsed().as_secs_f64();
    let began = |name: &str| run.reports.iter().any(|report| report.scenario == name);
    run.not_run =
        scenarios.iter().filter(|one| !began(one.name)).map(|one| one.name.to_owned()).collect();
    let saved = arguments.report.is_some().then(|| run.save(folder)).transpose()?;
    if run.reports.len() != 1 || !run.not_run.is_empty() {
        say(run.table().trim_end());
    }
    if let Some(saved) = saved {
        say(&format!("  {:<26} {}", "page", saved.html.display()));
        say(&format!("  {:<26} {}", "JUnit", saved.junit.display()));
        say(&format!("  {:<26} {}", "JSON", saved.json.display()));
    }
    let verdict = run.verdict();
    // A broken promise says more than a broken harness.
    if verdict != Verdict::Violated && !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    Ok(verdict)
}

/// Where time is short the end of the list is never reached; so each run begins elsewhere, and many runs reach all.
fn begin_anywhere(names: &mut [&str], seed: u64) {
    let places = names.len().max(1) as u64;
    // Smaller than the length of a list.
    names.rotate_left(usize::try_from(seed % places).unwrap_or_default());
}

/// One scenario alone gets the seed that was given, so that what a report says can be repeated by hand.
fn seed_of(arguments: &RunArguments, seed: u64, next: Next) -> u64 {
    if arguments.all || arguments.minutes.is_some() {
        tercet_chaos::derived_seed(seed, next.name, next.round)
    } else {
        seed
    }
}

/// This program again, for one scenario, in namespaces that go with it.
fn start_one(
    scenario: &Scenario,
    arguments: &RunArguments,
    seed: u64,
    folder: &Path,
    namespaces: Namespaces,
) -> Result<Child> {
    ScenarioReport::forget(folder, scenario.name, seed)?;
    let setpriv = Tool::find("setpriv")?;
    let mut command = Command::new(setpriv.path());
    command.args(["--pdeathsig", "TERM"]);
    let unshared = namespaces.arguments();
    if !unshared.is_empty() {
        command.arg("unshare").args(unshared);
    }
    command.arg(std::env::current_exe().context("find this program")?);
    command.args(["run", scenario.name, "--inside", &namespaces.to_string()]);
    command.args(["--seed", &seed.to_string()]);
    command.args(["--replicated-within", &arguments.replicated_within.to_string()]);
    command.arg("--report").arg(folder);
    if arguments.full {
        command.arg("--full");
    }
    // Not with SIGKILL if this program fails: it is to clean up.
    command.spawn().with_context(|| format!("start {}", scenario.name))
}

/// What a person or a system sends that wants this program to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn title(arguments: &RunArguments) -> String {
    let mut words = vec!["run".to_owned()];
    if arguments.all {
        words.push("--all".to_owned());
    }
    words.extend(arguments.names.iter().cloned());
    if arguments.full {
        words.push("--full".to_owned());
    }
    if let Some(minutes) = arguments.minutes {
        words.push(format!("--minutes {minutes}"));
    }
    words.join(" ")
}

/// The commit of the work tree that this program was started in, and whether it was changed. Of a program that lies
/// elsewhere it says nothing.
async fn commit() -> Option<String> {
    if std::env::var_os(PROGRAM).is_some() {
        return None;
    }
    let describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"];
    let said = Tool::find("git").ok()?.run(&describe).await.ok()?;
    Some(said.stdout.trim().to_owned()).filter(|commit| !commit.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_is_the_first_one_for_some_seed() {
        let all = ["a", "b", "c"];
        let first = |seed: u64| {
            let mut names = all;
            begin_anywhere(&mut names, seed);
            // Who is beside whom stays the same.
            assert!([names, names].concat().windows(all.len()).any(|part| *part == all));
            names[0]
        };
        assert_eq!([first(0), first(1), first(2), first(3)], ["a", "b", "c", "a"]);
        begin_anywhere(&mut [], u64::MAX);
    }
}
