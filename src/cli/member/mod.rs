//! `tercet member`: who is in the cluster, and changes of that.

mod add;
mod change;
mod list;
mod promote;
mod remove;
mod transfer;
mod view;

use clap::{Args, Subcommand};

use super::ConfigArgs;
use super::admin::AdminClient;
use crate::exit::Failure;

/// Show, add, remove or promote the replicas of a cluster
#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// Show every member
    List(list::ListArgs),
    /// Let a replica in that runs already and waits, or would not come by itself
    Add(add::AddArgs),
    /// Remove a replica for good, after its blobs are copied elsewhere
    Remove(remove::RemoveArgs),
    /// Make a learner a voter
    Promote(promote::PromoteArgs),
    /// Hand leadership to another replica
    Transfer(transfer::TransferArgs),
}

/// Whom the command asks.
#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    config: ConfigArgs,
    /// Peer listener of any replica [default: that of the replica this configuration is for]
    #[arg(long, value_name = "URL")]
    peer: Option<String>,
}

impl Asked {
    async fn connect(&self) -> Result<AdminClient, Failure> {
        let config = self.config.load()?;
        AdminClient::connect(&config, self.peer.as_deref()).await
    }
}

/// What every change needs.
#[derive(Debug, Args)]
struct Consent {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Has the operator type `word`, unless consent was given.
    fn ask(&self, question: &str, word: &str) -> Result<(), Failure> {
        if self.yes { Ok(()) } else { super::ask::confirm(question, word) }
    }
}

pub(super) async fn run(command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::List(args) => list::run(args).await,
        MemberCommand::Add(args) => add::run(args).await,
        MemberCommand::Remove(args) => remove::run(args).await,
        MemberCommand::Promote(args) => promote::run(args).await,
        MemberCommand::Transfer(args) => transfer::run(args).await,
    }
}
