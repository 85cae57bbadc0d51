//! `tercet-chaos verify`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tercet_chaos::{Login, Mode, RunReport, Strictness, Verdict, VerifyOptions, Work};

use super::wrong_use;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArguments {
    /// Base URLs of the registry listeners of all replicas.
    #[arg(long, value_name = "URL,URL,URL", value_delimiter = ',', required = true)]
    target: Vec<String>,
    /// Folder of the ledger: what was acknowledged stays there from run to run. Not on the cluster that is verified.
    #[arg(long, value_name = "DIR", default_value = "tercet-ledger")]
    ledger: PathBuf,
    /// Who to log in as.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// PEM of the authority that has signed the registry's certificates [default: the system's].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Everything is pushed into repositories below this one.
    #[arg(long, value_name = "PREFIX", default_value = "tercet-chaos/verify")]
    repository: String,
    /// How long to push and to move tags.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Operations per second, all clients together.
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    rate: f64,
    /// Most images to push.
    #[arg(long, value_name = "N", default_value_t = 200)]
    images: u64,
    /// Most MiB of layers to push.
    #[arg(long, value_name = "N", default_value_t = 64)]
    mebibytes: u64,
    /// How long a replica that answers may take to give something that is kept.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    patience: u64,
    /// Only pulls and checks: pushes nothing, and adds nothing to the ledger.
    #[arg(long, conflicts_with = "prune")]
    check_only: bool,
    /// Deletes the images of earlier runs at the end, once they were checked.
    #[arg(long)]
    prune: bool,
    /// Ends with 2 if any replica did not answer, even if the others give everything.
    #[arg(long)]
    strict: bool,
    /// What all random choices are drawn from; else a new one, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for the report: JSON, JUnit XML, and a page.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

pub(super) fn verify(arguments: &VerifyArguments) -> Result<Verdict> {
    let start = Instant::now();
    let options = options(arguments)?;
    println!("verify, seed {}", options.seed);
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let report = runtime.block_on(tercet_chaos::verify(&options))?;
    print!("{}", report.table());
    let verdict = report.verdict;
    if let Some(folder) = &arguments.report {
        let run = RunReport {
            title: "verify".to_owned(),
            seed: options.seed,
            version: report.version.clone(),
            started_unix_s: report.started_unix_s,
            seconds: start.elapsed().as_secs_f64(),
            reports: vec![report],
            ..RunReport::default()
        };
        let saved = run.save(folder)?;
        println!("  report                     {}", saved.html.display());
    }
    Ok(verdict)
}

fn options(arguments: &VerifyArguments) -> Result<VerifyOptions> {
    for target in &arguments.target {
        if !target.starts_with("http://") && !target.starts_with("https://") {
            return Err(wrong_use(format!(
                "{target} is no URL: begin it with https:// or http://"
            )));
        }
    }
    if !(arguments.rate > 0.0 && arguments.rate <= 10_000.0) {
        return Err(wrong_use("--rate is between 0 and 10000"));
    }
    let login = match (&arguments.user, &arguments.password_file) {
        (Some(user), Some(file)) => Some(Login::new(user, &tercet_chaos::read_password(file)?)),
        _ => None,
    };
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("read the authority {}", path.display()))
    };
    Ok(VerifyOptions {
        targets: arguments.target.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
        ledger: arguments.ledger.clone(),
        login,
        ca: arguments.ca.as_ref().map(read).transpose()?,
        repository: arguments.repository.trim_matches('/').to_owned(),
        seed: arguments.seed.unwrap_or_else(tercet_chaos::new_seed),
        work: Work {
            time: Duration::from_secs(arguments.seconds),
            rate: arguments.rate,
            images_max: arguments.images,
            bytes_max: arguments.mebibytes.saturating_mul(1 << 20),
            layer_max: 512 << 10,
        },
        patience: Duration::from_secs(arguments.patience),
        mode: match (arguments.check_only, arguments.prune) {
            (true, _) => Mode::CheckOnly,
            (false, true) => Mode::WorkAndPrune,
            (false, false) => Mode::Work,
        },
        strictness: match arguments.strict {
            true => Strictness::AllAnswer,
            false => Strictness::SomeAnswer,
        },
    })
}
