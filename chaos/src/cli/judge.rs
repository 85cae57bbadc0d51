//! `tercet-chaos judge`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tercet_chaos::{Control, JudgeTable, Mutation, Verdict};

use super::wrong_use;

#[derive(Debug, clap::Args)]
pub(super) struct JudgeArguments {
    /// Which bugs; else all.
    names: Vec<String>,
    /// What the runs begin with; else a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for the table, and for the reports and logs of all runs.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Leaves out the runs without the bugs.
    #[arg(long)]
    bugs_only: bool,
}

/// Held if every bug is found.
pub(super) fn judge(arguments: &JudgeArguments) -> Result<Verdict> {
    let mutations: Vec<&Mutation> = if arguments.names.is_empty() {
        tercet_chaos::mutations().iter().collect()
    } else {
        arguments.names.iter().map(|name| named(name)).collect::<Result<_>>()?
    };
    let seed = arguments.seed.unwrap_or_else(tercet_chaos::new_seed);
    println!("seed {seed}");
    let control = if arguments.bugs_only { Control::Skip } else { Control::Run };
    let temporary = tempfile::tempdir().context("make a folder for the runs")?;
    let folder = arguments.report.as_deref().unwrap_or(temporary.path());
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let mut table = JudgeTable { seed, cases: Vec::new() };
    for mutation in mutations {
        table.cases.push(runtime.block_on(tercet_chaos::judge(mutation, seed, control, folder))?);
        // After each, since a judgement of all takes long and may be stopped.
        table.save(folder)?;
    }
    print!("\n{}", table.markdown());
    if arguments.report.is_some() {
        println!("\n{}", table.save(folder)?.display());
    }
    Ok(if table.all_caught() { Verdict::Held } else { Verdict::Violated })
}

fn named(name: &str) -> Result<&'static Mutation> {
    tercet_chaos::find_mutation(name).ok_or_else(|| {
        let names: Vec<&str> = tercet_chaos::mutations().iter().map(|known| known.bug).collect();
        wrong_use(format!("no bug is called {name}; there are {}", names.join(", ")))
    })
}
