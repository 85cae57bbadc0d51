//! `tercet-chaos load`.

use std::{path::PathBuf, thread::available_parallelism, time::Duration};

use anyhow::{Context, Result};
use tercet_chaos::{
    Bodies, LoadOptions, LoadTarget, Mix, Pace, PushUnit, Rest, Source, Verdict, Workload, say,
};

use super::wrong_use;

/// Sizes of the layers unless told otherwise.
const LAYERS: [usize; 3] = [10 << 20; 3];

#[derive(Debug, clap::Args)]
pub(super) struct LoadArguments {
    /// What the clients do.
    workload: Workload,
    /// What is measured, one after the other. Several servers joined by + are measured as one: clients spread
    /// over them.
    #[arg(long, value_name = "[NAME=]URL[+URL],…", value_delimiter = ',', required = true)]
    target: Vec<LoadTarget>,
    /// Processes of a target's servers, if they run on this machine: their processor time is reported.
    #[arg(long, value_name = "NAME=PID[+PID]", value_delimiter = ',')]
    pid: Vec<String>,
    /// PEM of the authority that has signed the certificates of https:// targets.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Operations under way at a time, each on a connection of its own. Without --rate each client goes on as
    /// soon as it can.
    #[arg(long, value_name = "N", default_value_t = 16)]
    clients: usize,
    /// Operations per second, whatever the target does: latencies count from when an operation was due.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How long each target is measured.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Most operations of each measurement; of a storm: storms [default: no bound; one storm].
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// The same load before each measurement, which does not count. For a storm: one storm, unless it is 0.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    warm_up: u64,
    /// How often each target is measured, in turn with the others.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: usize,
    /// A request that has no whole answer by then has failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    deadline: u64,
    /// Threads of the load [default: one for each core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Sizes of the layers of the image that is made for the load, such as 64K or 256M [default: 10M,10M,10M].
    #[arg(long, value_name = "SIZE,SIZE", value_delimiter = ',', value_parser = parse_size)]
    layers: Vec<usize>,
    /// Pulls an image that is there already.
    #[arg(long, value_name = "REPOSITORY:TAG", conflicts_with = "path")]
    existing: Option<String>,
    /// Pulls whatever lies at this path, from any server.
    #[arg(long, value_name = "/PATH")]
    path: Option<String>,
    /// Where the load pushes to; into the repository of --existing, if that is given.
    #[arg(long, value_name = "REPOSITORY", default_value = "tercet-chaos/load")]
    repository: String,
    /// A push is a whole image: all layers, a config, and a manifest under a new tag.
    #[arg(long)]
    images: bool,
    /// Pushes blobs in chunks of this size, and not in one piece.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    chunk: Option<usize>,
    /// Moves so many tags around [default: every operation sets a new one].
    #[arg(long, value_name = "N")]
    tags: Option<u64>,
    /// Shares of the workload mixed [default: pull=30,manifest=60,push=5,tags=5].
    #[arg(long, value_name = "KIND=SHARE,…")]
    mix: Option<Mix>,
    /// Hashes what is pulled, which costs the client half a second per gigabyte. Else bytes are only counted.
    #[arg(long)]
    verify: bool,
    /// Brings everything that was written to the disk before each measurement, so that no target pays for what
    /// another one has put off.
    #[arg(long)]
    sync: bool,
    /// What all random choices are drawn from; else a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Writes all figures there.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Held if everything was answered, void if a target has no figure.
pub(super) fn load(arguments: &LoadArguments) -> Result<Verdict> {
    let options = options(arguments)?;
    if let Some(problem) = options.problem() {
        return Err(wrong_use(problem));
    }
    say(&format!("load {}, seed {}", options.workload.word(), options.seed));
    say(match options.bodies {
        Bodies::Counted => "bodies are counted, and not hashed (--verify)",
        Bodies::Hashed => "bodies are hashed: the client has less time for the load",
    });
    let report = tercet_chaos::load(options)?;
    say(report.table().trim_end());
    if let Some(path) = &arguments.json {
        report.save(path)?;
        say(&format!("figures: {}", path.display()));
    }
    let verdict = report.verdict();
    if verdict != Verdict::Held {
        say(&format!("{}: see what failed above", verdict.word()));
    }
    Ok(verdict)
}

fn options(arguments: &LoadArguments) -> Result<LoadOptions> {
    let cores = available_parallelism().map_or(1, usize::from);
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("read the authority {}", path.display()))
    };
    Ok(LoadOptions {
        workload: arguments.workload,
        targets: targets(arguments)?,
        rounds: arguments.rounds,
        ca: arguments.ca.as_ref().map(read).transpose()?,
        repository: arguments.repository.trim_matches('/').to_owned(),
        source: source(arguments)?,
        unit: if arguments.images { PushUnit::Image } else { PushUnit::Blob },
        chunk: arguments.chunk,
        tags: arguments.tags,
        mix: arguments.mix.unwrap_or_default(),
        bodies: if arguments.verify { Bodies::Hashed } else { Bodies::Counted },
        pace: arguments.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
        clients: arguments.clients,
        threads: arguments.threads.unwrap_or(cores).min(arguments.clients.max(1)),
        time: Duration::from_secs(arguments.seconds),
        operations_max: arguments.requests,
        warm_up: Duration::from_secs(arguments.warm_up),
        deadline: Duration::from_secs(arguments.deadline),
        seed: arguments.seed.unwrap_or_else(tercet_chaos::new_seed),
        rest: if arguments.sync { Rest::Synced } else { Rest::Left },
    })
}

fn source(arguments: &LoadArguments) -> Result<Source> {
    if let Some(path) = &arguments.path {
        return Ok(Source::Paths(vec![path.clone()]));
    }
    let Some(existing) = &arguments.existing else {
        let layers = Some(arguments.layers.clone()).filter(|layers| !layers.is_empty());
        return Ok(Source::Made(layers.unwrap_or_else(|| LAYERS.to_vec())));
    };
    let (repository, tag) = existing
        .rsplit_once(':')
        .ok_or_else(|| wrong_use(format!("{existing} has no tag: write REPOSITORY:TAG")))?;
    Ok(Source::Existing { repository: repository.to_owned(), tag: tag.to_owned() })
}

/// The targets with the processes that belong to them.
fn targets(arguments: &LoadArguments) -> Result<Vec<LoadTarget>> {
    let mut targets = arguments.target.clone();
    for text in &arguments.pid {
        let wrong = || wrong_use(format!("{text} names no processes: write NAME=PID+PID"));
        let (name, pids) = text.split_once('=').ok_or_else(wrong)?;
        let pids = pids.split('+').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
        let Some(target) = targets.iter_mut().find(|target| target.name == name) else {
            return Err(wrong_use(format!("no target is called {name}")));
        };
        target.pids = pids.map_err(|_| wrong())?;
    }
    Ok(targets)
}

/// Bytes, or with K, M or G so many times 1,024 of them.
fn parse_size(text: &str) -> Result<usize, String> {
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (text.get(..at), 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    number
        .and_then(|number| number.parse::<usize>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is no size, such as 512, 64K or 256M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64K"), Ok(65_536));
        assert_eq!(parse_size("256M"), Ok(256 << 20));
        assert_eq!(parse_size("1g"), Ok(1 << 30));
        for wrong in ["", "K", "1T", "-1", "1.5M", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong:?}");
        }
    }
}
