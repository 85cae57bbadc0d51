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
    let head = ["NAME", "ROLE", "TERM", "APPLIED", "LAG", "MISSING", "DISK", "REACHABLE"];
    let mut rows = vec![head.map(ToOwned::to_owned)];
    rows.extend(status.members.iter().map(row));
    let widths: [usize; 8] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default()
    });
    for row in &rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text.trim_end().to_owned()
}

fn row(member: &MemberStatus) -> [String; 8] {
    let disk = match (member.disk_used, member.disk_total) {
        (Some(used), Some(total)) => format!("{} of {}", bytes(used), bytes(total)),
        _ => "-".to_owned(),
    };
    [
        member.name.clone(),
        member.role.clone(),
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
        };
        let status = Status {
            cluster_id: "c0ffee".into(),
            name: "tercet-0".into(),
            node_id: 1,
            version: "0.1.0".into(),
            leader: Some("tercet-0".into()),
            term: 2,
            applied: 12,
            members: vec![member("tercet-0", true), member("tercet-1", false)],
        };
        assert_eq!(
            table(&status),
            "cluster c0ffee  leader tercet-0  term 2  (as tercet-0 0.1.0 sees it)\n\n\
             NAME      ROLE      TERM  APPLIED  LAG  MISSING  DISK                REACHABLE\n\
             tercet-0  follower  2     12       0    0        1.0 GiB of 4.0 GiB  yes\n\
             tercet-1  follower  -     -        -    -        -                   no"
        );
    }
}
