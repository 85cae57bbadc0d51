//! `tercet fsck`: is everything on this disk what it should be?

use std::time::Duration;

use clap::Args;
use tercet_storage::DataDir;

use super::{ConfigArgs, print};
use crate::app::storage_failure;
use crate::config::NodeRole;
use crate::exit::{Exit, Failure, OrExit};
use crate::fsck::report::{Report, Severity};
use crate::fsck::{Expected, Mode, check};
use crate::text::bytes;

/// Check the data directory of a replica that does not run: identity, log, state, every blob
#[derive(Debug, Args)]
pub(super) struct FsckArgs {
    /// Move wrong blobs and old orphans to quarantine, remove what crashes left, make derived tables anew.
    /// Nothing that all replicas agree on is changed
    #[arg(long)]
    repair: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: FsckArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    let data = DataDir::new(&config.node.data_dir);
    if !data.root().is_dir() {
        let message = format!("{} is no directory", data.root().display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let mode = if args.repair { Mode::Repair } else { Mode::Look };
    let expected = Expected {
        replication_factor: config.cluster.replication_factor,
        edge: config.node.role == NodeRole::Edge,
        orphan_grace: Duration::from_secs(config.gc.orphan_grace_seconds),
    };
    let report = tokio::task::spawn_blocking(move || {
        let _lock = data.lock_as_is().map_err(storage_failure)?;
        check(&data, mode, expected).map_err(storage_failure)
    })
    .await
    .or_exit(Exit::Software)??;
    if args.json {
        print::line(&serde_json::to_string_pretty(&report).or_exit(Exit::Software)?);
    } else {
        tell(&report);
    }
    let (damage, missing) =
        (report.number_of(Severity::Damage), report.number_of(Severity::Missing));
    if damage + missing == 0 {
        return Ok(());
    }
    let message = format!("{damage} things are damaged and {missing} are missing");
    Err(Failure::new(Exit::Data, message))
}

fn tell(report: &Report) {
    print::line(&format!("data directory  {}", report.data_dir));
    if let (Some(replica), Some(cluster)) = (&report.replica, &report.cluster_id) {
        print::line(&format!("replica         {replica} of cluster {cluster}"));
    }
    if let Some(state) = &report.state {
        print::line(&format!("state           {state}"));
    }
    for (what, count) in &report.counts {
        let shown = if what.contains("bytes") { bytes(*count) } else { count.to_string() };
        print::line(&format!("{what:<28} {shown}"));
    }
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Damage => "DAMAGE",
            Severity::Missing => "MISSING",
            Severity::Note => "note",
        };
        print::line(&format!("\n{severity}  {}: {}", finding.part, finding.what));
        print::line(&format!("        {}", finding.advice));
    }
    if !report.incomplete_images.is_empty() {
        print::line("\nImages that this disk alone cannot serve whole:");
        for image in &report.incomplete_images {
            print::line(&format!("  {image}"));
        }
    }
    for done in &report.repaired {
        print::line(&format!("repaired: {done}"));
    }
    if report.worst().is_none_or(|worst| worst == Severity::Note) {
        print::line("\nclean");
    }
}
