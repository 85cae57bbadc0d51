//! `tercet config`: what a replica would run with.

use clap::Subcommand;

use super::{ConfigArgs, print};
use crate::exit::{Exit, Failure, OrExit};

/// Check or print the configuration
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what is wrong with the configuration; exit code 78 if anything is
    Check(ConfigArgs),
    /// Print the configuration with defaults, file, environment and flags merged
    Print(ConfigArgs),
}

pub(super) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => {
            let config = args.check()?;
            print::line(&format!(
                "ok: replica {} of {}, data in {}",
                config.node.name,
                config.initial_members().len(),
                config.node.data_dir.display()
            ));
        }
        ConfigCommand::Print(args) => {
            let text = toml::to_string(&args.load()?).or_exit(Exit::Software)?;
            print::line(text.trim_end());
        }
    }
    Ok(())
}
