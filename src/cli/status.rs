//! `tercet status`: the replicas of a cluster in a table.

use std::time::Duration;

use clap::Args;

use super::http::{OpsClient, OpsTls};
use super::print;
use crate::exit::{Exit, Failure, OrExit};
use crate::ops::status::{MemberStatus, Status};
use crate::text::{bytes, or_dash};

/// The replica asks the others for up to a second each, all at once.
const DEADLINE: Duration = Duration::from_secs(5);

/// Show the replicas of a cluster
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Ops listener of any replica
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5002")]
    ops: String,
    #[command(flatten)]
    tls: OpsTls,
    /// Print the JSON of /status instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let client = OpsClient::reaching(&args.ops, &args.tls, DEADLINE).or_exit(Exit::Usage)?;
    let answer = client.get(&args.ops, "/status").await.or_exit(Exit::Unavailable)?;
    if !answer.ok {
        let message = format!("{} has no status yet: {}", args.ops, answer.text.trim());
        return Err(Failure::new(Exit::Unavailable, message));
    }
    if args.json {
        print::line(answer.text.trim_end());
        return Ok(());
    }
    let status: Status = serde_json::from_str(&answer.text).or_exit(Exit::Data)?;
    print::line(&table(&status));
    Ok(())
}

fn table(status: &Status) -> String {
    let leader = status.leader.as_deref().unwrap_or("none: pushes get 503");
    let mut text = format!(
        "cluster {}  leader {leader}  term {}  (as {} {} sees it)\n\n",
        status.cluster_id, status.term, status.name, status.version
    );
    let head = [
        "NAME",
        "ROLE",
        "ZONE",
        "VERSION",
        "TERM",
        "APPLIED",
        "LAG",
        "MISSING",
        "DISK",
        "REACHABLE",
    ];
    let mut rows = vec![head.map(ToOwned::to_owned)];
    rows.extend(status.members.iter().map(row));
    text.push_str(&print::columns(&rows));
    for line in remarks(status) {
        text.push_str("\n\n");
        text.push_str(&line);
    }
    text
}

/// What does not fit into a table, and an operator has to read.
fn remarks(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(why) = &status.refused {
        lines.push(format!("{} is refused by its cluster: {why}", status.name));
    }
    for member in status.members.iter().filter(|member| member.name != status.name) {
        if let Some(why) = &member.refused {
            lines.push(format!("{} is refused by its cluster: {why}", member.name));
        }
    }
    let oldest = status.members.iter().filter_map(|member| member.oldest_missing_seconds).max();
    if let Some(seconds) = oldest.filter(|seconds| *seconds > 0) {
        lines.push(format!("a blob has been missing where it should be for {seconds} s"));
    }
    for loss in &status.lost {
        lines.push(format!(
            "no replica has blob {} any more; affected: {}",
            loss.digest,
            loss.images.join(", ")
        ));
    }
    lines
}

fn row(member: &MemberStatus) -> [String; 10] {
    let disk = match (member.disk_used, member.disk_total) {
        (Some(used), Some(total)) => format!("{} of {}", bytes(used), bytes(total)),
        _ => "-".to_owned(),
    };
    [
        member.name.clone(),
        member.shown_role(),
        or_dash(member.zone.as_deref()),
        or_dash(member.version.as_deref()),
        or_dash(member.term),
        or_dash(member.applied),
        or_dash(member.lag),
        or_dash(member.missing_blobs),
        disk,
        if member.reachable { "yes" } else { "no" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn columns_line_up_and_unknown_is_a_dash() {
        let member = |name: &str, reachable: bool| MemberStatus {
            name: name.into(),
            node_id: 1,
            role: "follower".into(),
            reachable,
            term: reachable.then_some(2),
            applied: reachable.then_some(12),
            lag: reachable.then_some(0),
            missing_blobs: reachable.then_some(0),
            disk_used: reachable.then_some(1 << 30),
            disk_total: reachable.then_some(4 << 30),
            version: reachable.then(|| "0.2.0".into()),
            ..MemberStatus::default()
        };
        let mut edge = member("tercet-2", true);
        edge.kind = "edge".into();
        edge.zone = Some("attic".into());
        edge.oldest_missing_seconds = Some(7);
        let status = Status {
            cluster_id: "c0ffee".into(),
            name: "tercet-0".into(),
            node_id: 1,
            version: "0.1.0".into(),
            leader: Some("tercet-0".into()),
            term: 2,
            applied: 12,
            refused: Some("TERCET-M04: removed".into()),
            members: vec![member("tercet-0", true), member("tercet-1", false), edge],
            ..Status::default()
        };
        assert_eq!(
            table(&status),
            "cluster c0ffee  leader tercet-0  term 2  (as tercet-0 0.1.0 sees it)\n\n\
             NAME      ROLE      ZONE   VERSION  TERM  APPLIED  LAG  MISSING  DISK                REACHABLE\n\
             tercet-0  follower  -      0.2.0    2     12       0    0        1.0 GiB of 4.0 GiB  yes\n\
             tercet-1  follower  -      -        -     -        -    -        -                   no\n\
             tercet-2  edge      attic  0.2.0    2     12       0    0        1.0 GiB of 4.0 GiB  yes\n\n\
             tercet-0 is refused by its cluster: TERCET-M04: removed\n\n\
             a blob has been missing where it should be for 7 s"
        );
    }
}
