//! The command line: one file to a subcommand.

mod bench;
mod book;
mod judge;
mod list;
mod load;
mod plan;
mod run;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tercet_chaos::Verdict;

/// The command line makes no sense (`EX_USAGE`).
const WRONG_USE: u8 = 64;
/// The harness itself failed (`EX_SOFTWARE`): nothing is said about the registry.
const BROKEN: u8 = 70;

/// Hurts clusters of real Tercet replicas in named ways, and judges what came of it.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Order,
}

const EXIT_CODES: &str = "Exit codes: 0 everything held, 1 an invariant was broken, 2 a run showed nothing, \
                          64 wrong use, 70 the harness itself failed";

/// A subcommand is a line here, one in [`obey`], and a file beside this one.
#[derive(Debug, Subcommand)]
enum Order {
    /// Shows all scenarios: what each expects, does and checks.
    List,
    /// Runs scenarios one after the other.
    Run(run::RunArguments),
    /// Checks a cluster that runs already: everything that earlier calls were promised, and some work.
    Verify(verify::VerifyArguments),
    /// Writes a page for each scenario into the book's sources.
    Book(book::BookArguments),
    /// Plants bugs in the registry, and sees whether the scenarios find them.
    Judge(judge::JudgeArguments),
    /// Measures how fast registries are, or other servers that speak HTTP/1.1.
    Load(load::LoadArguments),
    /// Measures Tercet beside its peers, and writes the page about it.
    Bench(bench::BenchArguments),
}

/// The arguments were understood, and cannot be followed.
#[derive(Debug)]
struct WrongUse(String);

impl std::fmt::Display for WrongUse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// Wrong use, for `return Err(…)`.
fn wrong_use(what: impl Into<String>) -> anyhow::Error {
    WrongUse(what.into()).into()
}

pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody listens if this fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG_USE } else { 0 });
        }
    };
    match obey(&arguments.command) {
        Ok(verdict) => ExitCode::from(verdict.code()),
        Err(error) => {
            eprintln!("tercet-chaos: {error:#}");
            ExitCode::from(if error.is::<WrongUse>() { WRONG_USE } else { BROKEN })
        }
    }
}

fn obey(order: &Order) -> Result<Verdict> {
    match order {
        Order::List => {
            list::list();
            Ok(Verdict::Held)
        }
        Order::Run(arguments) => run::run(arguments),
        Order::Verify(arguments) => verify::verify(arguments),
        Order::Book(arguments) => book::book(arguments),
        Order::Judge(arguments) => judge::judge(arguments),
        Order::Load(arguments) => load::load(arguments),
        Order::Bench(arguments) => bench::bench(arguments),
    }
}
