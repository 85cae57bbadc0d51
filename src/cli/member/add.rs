//! `tercet member add`.

use clap::Args;

use super::view::{self, Voters};
use super::{ChangeArgs, change};
use crate::admin::member::AddMember;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::exit::Failure;

/// Let a replica in that runs already and waits, or would not come by itself
#[derive(Debug, Args)]
pub(in crate::cli) struct AddArgs {
    /// Name that the replica is configured with
    #[arg(value_name = "NAME")]
    replica: String,
    /// Base URL of its peer listener
    #[arg(value_name = "URL")]
    address: String,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn run(args: AddArgs) -> Result<(), Failure> {
    let (client, status) = args.change.connect().await?;
    let (name, address) = (args.replica.as_str(), args.address.as_str());
    print::problem(&format!(
        "{name} at {address} becomes a member of cluster {}: a voter while there are fewer than five, else a learner.\n  now: {}",
        status.cluster_id,
        Voters::of(&status)
    ));
    args.change.ask("Add it?", name)?;
    let mut progress = Progress::new("asking the leader");
    let patience = args.change.patience();
    let request = AddMember { name: name.to_owned(), address: address.to_owned() };
    let added =
        change::insist(&client, "/admin/members/add", &request, &mut progress, patience).await?;
    change::wait(&client, &mut progress, patience, |status| {
        let Some(member) = view::member(status, name) else {
            return Some(format!("{name} is not in the membership yet"));
        };
        let voters = status.members.iter().filter(|member| view::votes(member)).count();
        if member.kind != "edge" && !view::votes(member) && voters < 5 {
            return Some(format!("{name} catches up"));
        }
        match member.missing_blobs {
            None => Some(format!("{name} has not compared its disk with the catalogue yet")),
            Some(0) => None,
            Some(missing) => Some(format!("{name} fetches {missing} blobs")),
        }
    })
    .await?;
    change::warn(&added);
    progress.done(&added.what);
    Ok(())
}
