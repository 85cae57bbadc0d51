//! `tercet member transfer`.

use clap::Args;

use super::{ChangeArgs, change, view};
use crate::admin::member::TransferLeadership;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::exit::Failure;

/// Hand leadership to another replica
#[derive(Debug, Args)]
#[command(mut_arg("timeout", |timeout| timeout.default_value("60")))]
pub(in crate::cli) struct TransferArgs {
    /// Who shall lead [default: the voter that is furthest]
    #[arg(value_name = "NAME")]
    replica: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(super) async fn run(args: TransferArgs) -> Result<(), Failure> {
    let (client, status) = args.change.connect().await?;
    let leader = status.leader.clone().unwrap_or_default();
    if let Some(name) = &args.replica {
        view::known(&status, name)?;
        if *name == leader {
            print::line(&format!("{name} leads already"));
            return Ok(());
        }
    }
    let heir = args.replica.as_deref().unwrap_or("the voter that is furthest");
    print::problem(&format!(
        "leadership goes from {leader} to {heir}. Pulls go on; pushes wait for a moment."
    ));
    args.change.ask("Transfer it?", "transfer")?;
    let mut progress = Progress::new("handing leadership over");
    let patience = args.change.patience();
    let request = TransferLeadership { name: args.replica.clone() };
    let transferred =
        change::insist(&client, "/admin/members/transfer", &request, &mut progress, patience)
            .await?;
    change::wait(&client, &mut progress, patience, |status| {
        match (&args.replica, &status.leader) {
            (_, None) => Some("there is no leader yet".to_owned()),
            (Some(heir), Some(now)) if heir != now => Some(format!("{now} still leads")),
            _ => None,
        }
    })
    .await?;
    progress.done(&transferred.what);
    Ok(())
}
