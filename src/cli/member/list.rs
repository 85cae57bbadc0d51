//! `tercet member list`.

use clap::Args;

use super::view::Voters;
use crate::cli::admin::Asked;
use crate::cli::print;
use crate::exit::{Exit, Failure, OrExit};
use crate::ops::status::{MemberStatus, Status};
use crate::text::or_dash;

/// Show every member
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    asked: Asked,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ListArgs) -> Result<(), Failure> {
    let client = args.asked.connect().await?;
    let status: Status = client.get_json("/admin/members").await?;
    if args.json {
        print::line(&serde_json::to_string_pretty(&status).or_exit(Exit::Software)?);
    } else {
        print::line(&table(&status));
    }
    Ok(())
}

fn table(status: &Status) -> String {
    let head = ["NAME", "ID", "ROLE", "ZONE", "REACHABLE", "LAG", "MISSING", "VERSION", "LEVEL"];
    let mut rows = vec![head.map(ToOwned::to_owned)];
    rows.extend(status.members.iter().map(row));
    let leader = status.leader.as_deref().unwrap_or("none");
    let mut text = print::columns(&rows);
    text.push_str(&format!(
        "\n\n{}; leader {leader}; feature level {}",
        Voters::of(status),
        status.feature_level
    ));
    if let Some(why) = &status.refused {
        text.push_str(&format!("\n\n{} is refused by its cluster: {why}", status.name));
    }
    text
}

fn row(member: &MemberStatus) -> [String; 9] {
    [
        member.name.clone(),
        member.node_id.to_string(),
        member.shown_role(),
        or_dash(member.zone.as_deref()),
        if member.reachable { "yes" } else { "no" }.to_owned(),
        or_dash(member.lag),
        or_dash(member.missing_blobs),
        or_dash(member.version.as_deref()),
        or_dash(member.feature_level),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_table_says_who_votes() {
        let member = |name: &str, role: &str, kind: &str| MemberStatus {
            name: name.into(),
            node_id: 7,
            role: role.into(),
            kind: kind.into(),
            reachable: true,
            lag: Some(0),
            ..MemberStatus::default()
        };
        let mut leaving = member("b", "follower", "voter");
        leaving.leaving = true;
        let status = Status {
            leader: Some("a".into()),
            feature_level: 2,
            members: vec![
                member("a", "leader", "voter"),
                leaving,
                member("c", "follower", "voter"),
                member("d", "learner", "edge"),
            ],
            ..Status::default()
        };
        assert_eq!(
            table(&status),
            "NAME  ID  ROLE               ZONE  REACHABLE  LAG  MISSING  VERSION  LEVEL\n\
             a     7   leader             -     yes        0    -        -        -\n\
             b     7   follower, leaving  -     yes        0    -        -        -\n\
             c     7   follower           -     yes        0    -        -        -\n\
             d     7   edge               -     yes        0    -        -        -\n\n\
             voters a, b, c (2 of 3 must answer); leader a; feature level 2"
        );
    }
}
