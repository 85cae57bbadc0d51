//! The command line.

mod admin;
mod ask;
mod backup;
mod certs;
mod config;
mod dev;
mod fsck;
mod gc;
mod http;
mod member;
mod print;
mod progress;
mod recover;
mod restore;
mod retention;
mod scrub;
mod serve;
mod signals;
mod state_hash;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::auth::Accounts;
use crate::config::{Config, Overrides, Sources};
use crate::exit::{Exit, Failure, OrExit};

pub(crate) use backup::failure as backup_failure;

/// Threads for blocking work, which is disk reads and writes. Each may hold a piece of a blob, so
/// this also bounds memory.
const BLOCKING_THREADS_MAX: usize = 128;
/// How long the runtime may take to end after the command is done.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// A replicated, highly available OCI registry.
#[derive(Debug, Parser)]
#[command(name = "tercet", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one replica
    Serve(serve::ServeArgs),
    /// Run a whole cluster on this machine, to try it or to test against it
    Dev(dev::DevArgs),
    /// Show what garbage collection would remove, or collect now
    Gc(gc::GcArgs),
    /// Show what the retention rules let go of
    Retention(retention::RetentionArgs),
    /// Read all blobs of a replica again, or show how far that is
    Scrub(scrub::ScrubArgs),
    /// Show the replicas of a cluster
    Status(status::StatusArgs),
    /// Compare the replicated state of the members
    StateHash(state_hash::StateHashArgs),
    /// Show, add, remove or promote the replicas of a cluster
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Back a running cluster up into a directory or a file
    Backup(backup::BackupArgs),
    /// Make a new cluster out of a backup
    Restore(restore::RestoreArgs),
    /// Check the data directory of a replica that does not run
    Fsck(fsck::FsckArgs),
    /// Last resort: found a new cluster from one surviving data directory
    Recover(recover::RecoverArgs),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make certificates for replicas, listeners and clients
    #[command(subcommand)]
    Certs(certs::CertsCommand),
}

/// Where a command's configuration comes from.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// TOML file; its keys are in docs/src/configuration.md
    #[arg(long, value_name = "FILE", env = "TERCET_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, Failure> {
        Ok(self.load_with_sources()?.0)
    }

    /// Also the htpasswd file that it names, as the start does.
    fn check(&self) -> Result<Config, Failure> {
        let config = self.load()?;
        Accounts::load(&config.access).or_exit(Exit::Config)?;
        Ok(config)
    }

    /// Also where it came from, to look there again.
    fn load_with_sources(&self) -> Result<(Config, Sources), Failure> {
        let sources = Sources::of_process(self.config.clone(), self.overrides.clone());
        let config = crate::config::load(&sources).or_exit(Exit::Config)?;
        crate::config::check_listener_files(&config).or_exit(Exit::Config)?;
        Ok((config, sources))
    }
}

/// Runs the process and returns its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, and are none.
            let exit = if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
            // A closed standard output is the reader's choice.
            let _ = error.print();
            return exit;
        }
    };
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print::problem(&format!("tercet: {failure}"));
            failure.exit.into()
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    // First of all: a second provider anywhere in the process would make the default ambiguous.
    // Fails only if one is installed already, which is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .or_exit(Exit::Io)?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(args).await,
            Command::Dev(args) => dev::run(args).await,
            Command::Gc(args) => gc::run(args).await,
            Command::Retention(args) => retention::run(args).await,
            Command::Scrub(args) => scrub::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::StateHash(args) => state_hash::run(args).await,
            Command::Member(command) => member::run(command).await,
            Command::Backup(args) => backup::run(args).await,
            Command::Restore(args) => restore::run(args).await,
            Command::Fsck(args) => fsck::run(args).await,
            Command::Recover(args) => recover::run(args).await,
            Command::Config(command) => config::run(&command),
            Command::Certs(command) => certs::run(&command),
        }
    });
    runtime.shutdown_timeout(RUNTIME_GRACE);
    done
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }
}
