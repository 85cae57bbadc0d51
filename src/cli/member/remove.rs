//! `tercet member remove`.

use clap::Args;
use tercet_raft::Leaving;

use super::ChangeArgs;
use super::change::{self, Patience};
use super::view::{self, Voters};
use crate::admin::Force;
use crate::admin::member::{MarkLeaving, MemberAnswer, RemoveMember};
use crate::cli::admin::AdminClient;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::exit::Failure;
use crate::ops::status::{MemberStatus, Status};

/// Remove a replica for good, after its blobs are copied elsewhere
#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArgs {
    /// Name of the member
    #[arg(value_name = "NAME")]
    replica: String,
    #[command(flatten)]
    change: ChangeArgs,
    /// Do not wait until what it holds is copied elsewhere
    #[arg(long)]
    now: bool,
    /// Remove it although the rest may lose its quorum
    #[arg(long, requires = "reason")]
    force: bool,
    /// Why that is right, for the audit log
    #[arg(long, value_name = "TEXT", requires = "force")]
    reason: Option<String>,
    /// Take back a removal that was begun and is not done: blobs are placed on it again
    #[arg(long, conflicts_with_all = ["now", "force"])]
    cancel: bool,
}

pub(super) async fn run(args: RemoveArgs) -> Result<(), Failure> {
    let (client, status) = args.change.connect().await?;
    let name = args.replica.as_str();
    let member = view::known(&status, name)?.clone();
    let patience = args.change.patience();
    if args.cancel {
        return cancel(&client, &args, patience).await;
    }
    let force = match args.reason.clone().filter(|_| args.force) {
        Some(reason) => Force::Because(reason),
        None => Force::No,
    };
    if force == Force::No {
        // Refused before anybody is asked, and before blobs are moved about.
        let path = format!("/admin/members/removal?name={name}");
        change::warn(&client.get_json::<MemberAnswer>(&path).await?);
    }
    let before = Voters::of(&status);
    print::problem(&format!(
        "{name} ({}) is removed for good: its disk can never come back, a new one of that name can.\n{}\n{}",
        member.shown_role(),
        view::before_and_after(&before, &before.without(name)),
        copies_line(&args, &member),
    ));
    args.change.ask("Remove it?", name)?;

    let mut progress = Progress::new("asking the leader");
    if !args.now && member.kind != "edge" {
        let mark = MarkLeaving { name: name.to_owned(), leaving: Leaving::Yes };
        let marked =
            change::insist(&client, "/admin/members/leaving", &mark, &mut progress, patience)
                .await?;
        change::wait(&client, &mut progress, patience, |status| {
            copies_missing(status, name, marked.applied)
        })
        .await?;
    }
    let request = RemoveMember { name: name.to_owned(), force };
    let removed =
        change::insist(&client, "/admin/members/remove", &request, &mut progress, patience).await?;
    if client.hello().name != name {
        change::wait(&client, &mut progress, patience, |status| {
            let gone = status.members.iter().all(|other| other.node_id != member.node_id);
            (!gone).then(|| format!("{name} is still in the membership"))
        })
        .await?;
    }
    change::warn(&removed);
    progress.done(&format!(
        "{}. If {name} still runs, it has closed its registry listener: stop it, and wipe its data directory before a replica of that name starts again.",
        removed.what
    ));
    Ok(())
}

async fn cancel(
    client: &AdminClient,
    args: &RemoveArgs,
    patience: Patience,
) -> Result<(), Failure> {
    let mut progress = Progress::new("asking the leader");
    let mark = MarkLeaving { name: args.replica.clone(), leaving: Leaving::No };
    let answer =
        change::insist(client, "/admin/members/leaving", &mark, &mut progress, patience).await?;
    progress.done(&answer.what);
    Ok(())
}

fn copies_line(args: &RemoveArgs, member: &MemberStatus) -> &'static str {
    if member.kind == "edge" {
        "  copies:     an edge holds none that others count on"
    } else if args.now {
        "  copies:     NOT waited for: a blob that only it holds is lost"
    } else {
        "  copies:     what it holds is copied elsewhere first (--now does not wait)"
    }
}

/// What is still missing before nobody needs the copies of `leaving` any more. Each of the others has to
/// have compared its disk with the catalogue after it had applied `since`, when the member was marked.
fn copies_missing(status: &Status, leaving: &str, since: u64) -> Option<String> {
    let waiting: Vec<String> = status
        .members
        .iter()
        .filter(|member| member.name != leaving && member.kind != "edge" && !member.leaving)
        .filter_map(|member| {
            let name = &member.name;
            if !member.reachable {
                return Some(format!("{name} does not answer"));
            }
            if member.compared_applied.unwrap_or_default() < since {
                return Some(format!("{name} compares its disk with the catalogue"));
            }
            match member.missing_blobs {
                None => Some(format!("{name} compares its disk with the catalogue")),
                Some(0) => None,
                Some(1) => Some(format!("{name} misses 1 blob")),
                Some(missing) => Some(format!("{name} misses {missing} blobs")),
            }
        })
        .collect();
    if waiting.is_empty() {
        return None;
    }
    Some(format!("copying what {leaving} holds: {}", waiting.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn member(name: &str) -> MemberStatus {
        MemberStatus {
            name: name.into(),
            kind: "voter".into(),
            reachable: true,
            compared_applied: Some(10),
            missing_blobs: Some(0),
            ..MemberStatus::default()
        }
    }

    #[test]
    fn nobody_is_removed_before_all_others_have_looked_again_and_miss_nothing() {
        let judge = |change: fn(&mut MemberStatus)| {
            let (mut other, mut edge) = (member("b"), member("edge"));
            change(&mut other);
            edge.kind = "edge".into();
            edge.reachable = false;
            let status = Status { members: vec![member("a"), other, edge], ..Status::default() };
            copies_missing(&status, "a", 10)
        };
        assert_eq!(judge(|_| {}), None);
        for (change, reason) in [
            ((|b| b.missing_blobs = Some(2)) as fn(&mut MemberStatus), "b misses 2 blobs"),
            (|b| b.compared_applied = Some(9), "b compares its disk"),
            (|b| b.compared_applied = None, "b compares its disk"),
            (|b| b.reachable = false, "b does not answer"),
        ] {
            let waiting = judge(change).unwrap();
            assert!(waiting.contains(reason), "{waiting}");
        }
    }
}
