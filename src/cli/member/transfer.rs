//! `tercet member transfer`.

use clap::Args;

use super::change::{self, Patience};
use super::{Asked, Consent, view};
use crate::admin::member::TransferLeadership;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::exit::Failure;

/// Hand leadership to another replica
#[derive(Debug, Args)]
pub(in crate::cli) struct TransferArgs {
    /// Who shall lead [default: the voter that is furthest]
    #[arg(value_name = "NAME")]
    replica: Option<String>,
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    consent: Consent,
    /// Give up waiting after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub(super) async fn run(args: TransferArgs) -> Result<(), Failure> {
    let client = args.asked.connect().await?;
    let status = change::status(&client).await?;
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
    args.consent.ask("Transfer it?", "transfer")?;
    let mut progress = Progress::new("handing leadership over");
    let patience = Patience::of(Some(args.timeout));
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
