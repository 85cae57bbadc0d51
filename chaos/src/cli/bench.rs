//! `tercet-chaos bench`.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::Result;
use tercet_chaos::{BenchOptions, Extent, Suite, Verdict};

use super::wrong_use;

#[derive(Debug, clap::Args)]
pub(super) struct BenchArguments {
    /// What things cost as they get more, instead of Tercet beside its peers.
    #[arg(long)]
    growth: bool,
    /// Only these rows, by number or name; a wrong one shows all.
    #[arg(long, value_name = "ROW,…", value_delimiter = ',')]
    rows: Vec<String>,
    /// Everything as small as it can be, to see whether it works. Nothing is judged.
    #[arg(long)]
    quick: bool,
    /// How often each server is measured, in turn with the others [default: 3; quick: 1].
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each measurement takes that no number of operations ends [default: 4; quick: 1].
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Where benchmarks.md and the folder benchmarks go (growth-figures with --growth), or benchmarks-part of a run of less
    /// than everything.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Keeps the folders of the servers.
    #[arg(long)]
    keep: bool,
}

/// Held if every target is met.
pub(super) fn bench(arguments: &BenchArguments) -> Result<Verdict> {
    let (extent, rounds, seconds) = match arguments.quick {
        true => (Extent::Quick, 1, 1),
        false => (Extent::Whole, 3, 4),
    };
    let suite = if arguments.growth { Suite::Growth } else { Suite::Peers };
    let options = BenchOptions {
        suite,
        rows: arguments.rows.clone(),
        extent,
        rounds: arguments.rounds.unwrap_or(rounds),
        time: Duration::from_secs(arguments.seconds.unwrap_or(seconds)),
        out: arguments.out.clone(),
        keep: arguments.keep,
        commit: commit(),
    };
    if let Some(problem) = options.problem() {
        return Err(wrong_use(problem));
    }
    tercet_chaos::bench(options)
}

/// The commit of the work tree, if this is one, and whether it has changes that are in none.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let said = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(said.stdout).ok()?;
        said.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|text| !text.is_empty())?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}, changed") })
}
