//! `tercet member`: who is in the cluster, and changes of that.

mod add;
mod change;
mod list;
mod promote;
mod remove;
mod transfer;
mod view;

use clap::{Args, Subcommand};

use super::admin::{AdminClient, Asked};
use crate::exit::Failure;
use crate::ops::status::Status;
use change::Patience;

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

/// What every change needs.
#[derive(Debug, Args)]
struct ChangeArgs {
    #[command(flatten)]
    asked: Asked,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Give up waiting after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

impl ChangeArgs {
    /// Finds out how things stand with the cluster.
    async fn connect(&self) -> Result<(AdminClient, Status), Failure> {
        let client = self.asked.connect().await?;
        let status = change::status(&client).await?;
        Ok((client, status))
    }

    /// Has the operator type `word`, unless consent was given.
    fn ask(&self, question: &str, word: &str) -> Result<(), Failure> {
        if self.yes { Ok(()) } else { super::ask::confirm(question, word) }
    }

    /// Counts from now on.
    fn patience(&self) -> Patience {
        Patience::of(self.timeout)
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
