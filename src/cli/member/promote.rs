//! `tercet member promote`.

use clap::Args;

use super::view::{self, Voters};
use super::{ChangeArgs, change};
use crate::admin::member::MemberNamed;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::exit::Failure;

/// Make a learner a voter
#[derive(Debug, Args)]
pub(in crate::cli) struct PromoteArgs {
    /// Name of the member
    #[arg(value_name = "NAME")]
    replica: String,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn run(args: PromoteArgs) -> Result<(), Failure> {
    let (client, status) = args.change.connect().await?;
    let name = args.replica.as_str();
    let member = view::known(&status, name)?;
    if view::votes(member) {
        print::line(&format!("{name} is a voter already"));
        return Ok(());
    }
    let before = Voters::of(&status);
    print::problem(&format!(
        "{name} becomes a voter, once it has caught up.\n{}",
        view::before_and_after(&before, &before.with(name))
    ));
    args.change.ask("Promote it?", name)?;
    let mut progress = Progress::new("asking the leader");
    let patience = args.change.patience();
    let request = MemberNamed { name: name.to_owned() };
    let promoted =
        change::insist(&client, "/admin/members/promote", &request, &mut progress, patience)
            .await?;
    change::wait(&client, &mut progress, patience, |status| {
        let done = view::member(status, name).is_some_and(view::votes);
        (!done).then(|| format!("{name} does not vote yet"))
    })
    .await?;
    change::warn(&promoted);
    progress.done(&promoted.what);
    Ok(())
}
