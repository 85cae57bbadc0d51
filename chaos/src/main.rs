//! `tercet-chaos`: runs named faults against real replicas and reports what held.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use tercet_chaos::{Length, Needs, Scenario, Tool, Verdict};

/// Hurts clusters of real Tercet replicas in named ways, and judges what came of it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Shows all scenarios: what each expects, does and checks.
    List,
    /// Runs scenarios one after the other. Ends with 1 if an invariant was broken, 2 if a run showed nothing.
    Run(RunArguments),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// Which ones.
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// What all random choices are drawn from; else a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// The full form: more faults, larger data, and the machine for itself.
    #[arg(long)]
    full: bool,
    /// Folder for the reports in JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Set by this program for itself: it is in a network namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Order::List => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        Order::Run(arguments) => run(&arguments),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tercet-chaos: {error:#}");
        ExitCode::FAILURE
    })
}

fn list() {
    for scenario in tercet_chaos::scenarios() {
        let rows: Vec<String> = scenario.rows.iter().map(u8::to_string).collect();
        println!("{}  (rows: {})", scenario.name, rows.join(" "));
        println!("    expects  {}", scenario.hypothesis);
        println!("    fault    {}", scenario.fault);
        for invariant in scenario.invariants {
            println!("    {invariant:<8} {}", invariant.words());
        }
    }
}

fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let scenarios = if arguments.all {
        ensure!(arguments.names.is_empty(), "either names or --all");
        tercet_chaos::scenarios()
    } else {
        arguments.names.iter().map(|name| named(name)).collect::<Result<_>>()?
    };
    let seed = arguments.seed.unwrap_or_else(tercet_chaos::new_seed);
    let mut endings = Vec::new();
    for scenario in &scenarios {
        let verdict = if scenario.needs == Needs::Network && !arguments.inside {
            run_inside(scenario, arguments, seed)?
        } else {
            run_here(scenario, arguments, seed)?
        };
        endings.push((scenario.name, verdict));
    }
    if endings.len() > 1 {
        println!("seed {seed}");
        for (name, verdict) in &endings {
            println!("  {name:<26} {verdict:?}");
        }
    }
    let of = |wanted| endings.iter().any(|(_, verdict)| *verdict == wanted);
    Ok(if of(Verdict::Violated) {
        ExitCode::from(1)
    } else if of(Verdict::Void) {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

fn named(name: &str) -> Result<Scenario> {
    let known = tercet_chaos::scenarios();
    if let Some(scenario) = known.iter().find(|scenario| scenario.name == name) {
        return Ok(*scenario);
    }
    let names: Vec<&str> = known.iter().map(|scenario| scenario.name).collect();
    bail!("no scenario is called {name}; there are {}", names.join(", "))
}

fn run_here(scenario: &Scenario, arguments: &RunArguments, seed: u64) -> Result<Verdict> {
    let length = if arguments.full { Length::Full } else { Length::Short };
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let report = runtime.block_on(tercet_chaos::execute(scenario, seed, length));
    print!("{}", report.table());
    if let Some(folder) = &arguments.report {
        println!("  report                     {}", report.save(folder)?.display());
    }
    Ok(report.verdict)
}

/// This program again, in a network namespace that goes with it.
fn run_inside(scenario: &Scenario, arguments: &RunArguments, seed: u64) -> Result<Verdict> {
    let setpriv = Tool::find("setpriv")?;
    let mut command = Command::new(setpriv.path());
    command.args(["--pdeathsig", "TERM", "unshare", "--net"]);
    command.arg(std::env::current_exe().context("find this program")?);
    command.args(["run", scenario.name, "--inside", "--seed", &seed.to_string()]);
    if arguments.full {
        command.arg("--full");
    }
    if let Some(folder) = &arguments.report {
        let folder: &Path = folder;
        command.arg("--report").arg(folder);
    }
    let status = command.status().context("start in a network namespace (needs root)")?;
    match status.code() {
        Some(0) => Ok(Verdict::Held),
        Some(1) => Ok(Verdict::Violated),
        Some(2) => Ok(Verdict::Void),
        _ => bail!("{} ended with {status}", scenario.name),
    }
}
