//! `tercet scrub`: how far a replica is with reading all its blobs again, and the start of it on demand.

use std::time::Duration;

use clap::Args;

use super::admin::AdminClient;
use super::{ConfigArgs, print};
use crate::admin::scrub::ScrubReport;
use crate::exit::{Exit, Failure, OrExit};
use crate::text::bytes;

/// Between two questions while waiting.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Read all blobs of a replica again, or show how far that is
#[derive(Debug, Args)]
pub(super) struct ScrubArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Peer listener of the replica; default: the one of this configuration
    #[arg(long, value_name = "URL")]
    peer: Option<String>,
    /// Begin at once, whatever scrub.period_days says
    #[arg(long)]
    now: bool,
    /// Return only when all blobs are read; fails if one was wrong
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ScrubArgs) -> Result<(), Failure> {
    let client = AdminClient::connect(&args.config.load()?, args.peer.as_deref()).await?;
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
    if args.json {
        print::line(&serde_json::to_string(&report).or_exit(Exit::Software)?);
    } else {
        print::line(&text(&report));
    }
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
