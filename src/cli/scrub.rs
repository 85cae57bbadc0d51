//! `tercet scrub`: how far a replica is with reading all its blobs again, and the start of it on demand.

use std::time::Duration;

use clap::Args;

use super::admin::Question;
use crate::admin::scrub::ScrubReport;
use crate::exit::{Exit, Failure};
use crate::text::bytes;

/// Between two questions while waiting.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Read all blobs of a replica again, or show how far that is
#[derive(Debug, Args)]
#[command(mut_arg("peer", |peer| peer.help(
    "Peer listener of the replica [default: that of the replica this configuration is for]"
)))]
pub(super) struct ScrubArgs {
    #[command(flatten)]
    question: Question,
    /// Begin at once, whatever scrub.period_days says
    #[arg(long)]
    now: bool,
    /// Return only when all blobs are read; fails if one was wrong
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(args: ScrubArgs) -> Result<(), Failure> {
    let client = args.question.connect().await?;
    let mut report: ScrubReport = client.get_json("/admin/scrub").await?;
    if args.now {
        let before = report.scrub.last_completed_ms;
        report = client.post_json("/admin/scrub/start", &()).await?;
        // The start is the worker's: until it has begun, the report is of the last time.
        while args.wait
            && (report.scrub.last_completed_ms == before || report.scrub.fraction.is_some())
        {
            tokio::time::sleep(ASK_EVERY).await;
            report = client.get_json("/admin/scrub").await?;
        }
    }
    while args.wait && report.scrub.fraction.is_some() {
        tokio::time::sleep(ASK_EVERY).await;
        report = client.get_json("/admin/scrub").await?;
    }
    args.question.print(&report, text)?;
    if args.wait && (report.scrub.corrupt > 0 || !report.lost.is_empty()) {
        let (wrong, lost) = (report.scrub.corrupt, report.lost.len());
        let message = format!("{wrong} blobs were not right here, {lost} are on no replica");
        return Err(Failure::new(Exit::Data, message));
    }
    Ok(())
}

fn text(report: &ScrubReport) -> String {
    let scrub = &report.scrub;
    let state = match (scrub.fraction, scrub.last_completed_ms) {
        (Some(fraction), _) => format!("reading, {:.0} % done", fraction * 100.0),
        (None, Some(_)) => "done".to_owned(),
        (None, None) => "not begun".to_owned(),
    };
    let mut text = format!("{}: {state}, {} blobs were not right", report.name, scrub.corrupt);
    for loss in &report.lost {
        let images = if loss.images.is_empty() { "no image".into() } else { loss.images.join(" ") };
        let line = format!("\nLOST {} ({}): needed by {images}", loss.digest, bytes(loss.size));
        text.push_str(&line);
    }
    text
}
