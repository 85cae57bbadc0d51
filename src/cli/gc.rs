//! `tercet gc`: what garbage collection would remove, a round at once, and where it stands.

use clap::{Args, Subcommand};
use serde::Serialize;
use tercet_storage::{Clock, SystemClock};

use super::admin::{AdminClient, Question};
use crate::admin::gc::GcReport;
use crate::admin::retention::{DryRun, DryRunAsked};
use crate::exit::{Exit, Failure};
use crate::registry::{Candidate, CandidatePage, Round};
use crate::text::bytes;

/// Show what garbage collection would remove, or collect now
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct GcArgs {
    #[command(subcommand)]
    command: Option<GcCommand>,
    #[command(flatten)]
    question: Question,
    /// List the blobs that the next round would collect; remove nothing
    #[arg(long, conflicts_with = "now")]
    dry_run: bool,
    /// Have the leader do one round at once. The grace of every blob counts all the same
    #[arg(long)]
    now: bool,
}

#[derive(Debug, Subcommand)]
enum GcCommand {
    /// Show the last round of the leader and who holds collection off
    Status(Question),
}

pub(super) async fn run(args: GcArgs) -> Result<(), Failure> {
    match (args.command, args.dry_run, args.now) {
        (Some(GcCommand::Status(question)), ..) => status(&question).await,
        (None, true, _) => dry_run(&args.question).await,
        (None, false, true) => now(&args.question).await,
        (None, false, false) => {
            let message =
                "say what to do: `tercet gc --dry-run`, `tercet gc --now` or `tercet gc status`";
            Err(Failure::new(Exit::Usage, message.to_owned()))
        }
    }
}

/// All that would go.
#[derive(Debug, Default, PartialEq, Serialize)]
struct WouldGo {
    blobs: Vec<Candidate>,
    bytes: u64,
    /// Blobs without a reference whose grace is not over.
    waiting: u64,
    waiting_bytes: u64,
    /// What the retention rules let go of first; their blobs follow a grace later.
    retention: RetentionWouldGo,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct RetentionWouldGo {
    repositories: u64,
    tags: u64,
    manifests: u64,
}

async fn dry_run(question: &Question) -> Result<(), Failure> {
    let client = question.connect().await?;
    let mut all = WouldGo::default();
    let mut path = "/admin/gc/candidates".to_owned();
    loop {
        let page: CandidatePage = client.get_json(&path).await?;
        all.bytes += page.candidates.iter().map(|candidate| candidate.size).sum::<u64>();
        all.blobs.extend(page.candidates);
        all.waiting += page.waiting;
        all.waiting_bytes += page.waiting_bytes;
        match page.next_after {
            Some(after) => path = format!("/admin/gc/candidates?after={after}"),
            None => break,
        }
    }
    all.retention = retention(&client).await?;
    let now_ms = SystemClock.now_ms();
    question.print(&all, |all| list(all, now_ms))
}

async fn retention(client: &AdminClient) -> Result<RetentionWouldGo, Failure> {
    let mut total = RetentionWouldGo::default();
    let mut question = DryRunAsked::default();
    loop {
        let page: DryRun = client.post_json("/admin/retention/dry-run", &question).await?;
        for judgement in &page.repositories {
            total.repositories += 1;
            total.tags += count(judgement.tags.len());
            total.manifests += count(judgement.manifests.len());
        }
        match page.next_after {
            Some(last) => question.after = Some(last),
            None => return Ok(total),
        }
    }
}

async fn now(question: &Question) -> Result<(), Failure> {
    let round: Round = question.connect().await?.post_json("/admin/gc/run", &()).await?;
    question.print(&round, told)?;
    match round.skipped {
        Some(reason) => Err(Failure::new(Exit::Unavailable, format!("nothing was done: {reason}"))),
        None => Ok(()),
    }
}

async fn status(question: &Question) -> Result<(), Failure> {
    let report: GcReport = question.connect().await?.get_json("/admin/gc/status").await?;
    let now_ms = SystemClock.now_ms();
    question.print(&report, |report| describe(report, now_ms))
}

fn list(all: &WouldGo, now_ms: u64) -> String {
    let mut lines: Vec<String> = all.blobs.iter().map(|blob| line(blob, now_ms)).collect();
    let total = all.blobs.len();
    lines.push(format!(
        "{total} blobs would go, {} on each replica that holds them all",
        bytes(all.bytes)
    ));
    if all.waiting > 0 {
        let size = bytes(all.waiting_bytes);
        lines.push(format!(
            "{} more have no reference and wait for their grace ({size})",
            all.waiting
        ));
    }
    let RetentionWouldGo { repositories, tags, manifests } = all.retention;
    if repositories > 0 {
        lines.push(format!(
            "retention lets go of {tags} tags and {manifests} manifests in {repositories} repositories \
             (`tercet retention --dry-run` lists them); their blobs follow a grace later"
        ));
    }
    lines.join("\n")
}

fn line(blob: &Candidate, now_ms: u64) -> String {
    let repositories = match blob.repositories.as_slice() {
        [] => "no repository".to_owned(),
        names => names.join(" "),
    };
    let age = ago(blob.unreferenced_since_ms, now_ms);
    format!("{}  {}  unreferenced for {age}  {repositories}", blob.digest, bytes(blob.size))
}

fn told(round: &Round) -> String {
    format!(
        "collected {} blobs ({}) and {} empty repositories; {} blobs without a reference in all ({})",
        round.collected,
        bytes(round.collected_bytes),
        round.repositories,
        round.unreferenced,
        bytes(round.unreferenced_bytes),
    )
}

fn describe(report: &GcReport, now_ms: u64) -> String {
    let status = &report.status;
    let switch = if status.enabled { "on" } else { "off (gc.enabled)" };
    let mut lines = vec![format!(
        "garbage collection is {switch}: grace {} s, a round every {} s; the leader is {}",
        status.grace_seconds, status.interval_seconds, report.name
    )];
    match &status.last_round {
        None => lines.push("no round since this replica leads".to_owned()),
        Some(round) => {
            let age = ago(round.ended_ms, now_ms);
            lines.push(match &round.skipped {
                Some(reason) => format!("last round {age} ago: nothing was done, {reason}"),
                None => format!("last round {age} ago: {}", told(round)),
            });
        }
    }
    for hold in &report.holds {
        let left = ago(now_ms, hold.until_ms);
        lines.push(format!("{} keeps everything for {left} more", hold.holder));
    }
    lines.push(format!(
        "{} files removed here ({}), {} of them unknown to the cluster",
        status.removed_files,
        bytes(status.removed_bytes),
        status.removed_orphans
    ));
    lines.join("\n")
}

/// The time between two moments, in the unit that fits.
fn ago(since_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::admin::gc::Hold;
    use crate::registry::GcStatus;

    #[test]
    fn a_dry_run_lists_what_goes_and_what_follows() {
        let blob = |digest: &str, repositories: &[&str]| Candidate {
            digest: digest.to_owned(),
            size: 1536,
            unreferenced_since_ms: 1_000,
            repositories: repositories.iter().map(|&name| name.to_owned()).collect(),
        };
        let all = WouldGo {
            blobs: vec![blob("sha256:aa", &["a", "b"]), blob("sha256:bb", &[])],
            bytes: 3072,
            waiting: 1,
            waiting_bytes: 10,
            retention: RetentionWouldGo { repositories: 1, tags: 2, manifests: 3 },
        };
        assert_eq!(
            list(&all, 7_201_000),
            "sha256:aa  1.5 KiB  unreferenced for 2 h  a b\n\
             sha256:bb  1.5 KiB  unreferenced for 2 h  no repository\n\
             2 blobs would go, 3.0 KiB on each replica that holds them all\n\
             1 more have no reference and wait for their grace (10 B)\n\
             retention lets go of 2 tags and 3 manifests in 1 repositories \
             (`tercet retention --dry-run` lists them); their blobs follow a grace later"
        );
    }

    #[test]
    fn the_status_says_what_keeps_blobs() {
        let report = GcReport {
            name: "tercet-0".into(),
            status: GcStatus {
                enabled: true,
                grace_seconds: 60,
                interval_seconds: 5,
                last_round: Some(Round {
                    ended_ms: 1_000,
                    skipped: Some("backup keeps everything for now".into()),
                    ..Round::default()
                }),
                ..GcStatus::default()
            },
            holds: vec![Hold { holder: "backup".into(), until_ms: 61_000 }],
        };
        assert_eq!(
            describe(&report, 11_000),
            "garbage collection is on: grace 60 s, a round every 5 s; the leader is tercet-0\n\
             last round 10 s ago: nothing was done, backup keeps everything for now\n\
             backup keeps everything for 50 s more\n\
             0 files removed here (0 B), 0 of them unknown to the cluster"
        );
    }
}
