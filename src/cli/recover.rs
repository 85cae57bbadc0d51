//! `tercet recover`: a new cluster out of the one data directory that is left.

use clap::Args;
use tercet_raft::{Evidence, Founder, Refounded, SurvivingLog, Survivor};
use tercet_storage::{Clock, DataDir, SystemClock};

use super::ask::confirm;
use super::{ConfigArgs, print};
use crate::app::{raft_failure, storage_failure};
use crate::config::{Config, NodeRole};
use crate::exit::{Exit, Failure, OrExit};
use crate::fsck::lost::{Incomplete, Inventory, incomplete};
use crate::text::bytes;

/// Longest list of images that is printed.
const IMAGES_SHOWN: usize = 50;

/// Turn one surviving data directory into a new cluster of one replica, which others then join with
/// empty disks. The last resort: for when a majority of the replicas is lost for ever
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Take what the state holds, without the entries that only the log has; for a log that is damaged
    #[arg(long)]
    ignore_log: bool,
    /// Remove the old databases once the new cluster is founded; they stay beside it otherwise
    #[arg(long)]
    remove_evidence: bool,
    /// Forget blobs that are not on this disk, so that the next push of their images brings them again.
    /// Without it they are still looked for on the replicas that join
    #[arg(long)]
    forget_lost_blobs: bool,
}

pub(super) async fn run(args: RecoverArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    refuse_edge(&config)?;
    let data = DataDir::new(&config.node.data_dir);
    if !data.root().is_dir() {
        let message = format!("{} is no directory", data.root().display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let _lock = data.lock().map_err(storage_failure)?;
    let founder = Founder {
        name: config.node.name.clone(),
        address: config.peer_address(),
        now_ms: SystemClock.now_ms(),
    };
    if let Some(refounded) = tercet_raft::resume(&data, &founder.name).map_err(raft_failure)? {
        print::line("An earlier recovery was interrupted here; it is finished now.");
        tell_done(&refounded);
        return Ok(());
    }
    let survivor = Survivor::open(&data).await.map_err(raft_failure)?;
    let log = if args.ignore_log { SurvivingLog::Ignore } else { SurvivingLog::Apply };
    let lost = tell_found(&survivor, &data, log)?;
    if survivor.survey().log_problem.is_some() && log == SurvivingLog::Apply {
        return Err(Failure::new(
            Exit::Data,
            "the log cannot be read: --ignore-log recovers what the state alone holds",
        ));
    }
    print::line(WARNING);
    if !args.yes {
        confirm("This cannot be taken back once another replica has joined.", "recover")?;
    }
    let evidence = if args.remove_evidence { Evidence::Remove } else { Evidence::Keep };
    let forget = if args.forget_lost_blobs { lost.lost.into_keys().collect() } else { Vec::new() };
    let refounded =
        survivor.refound(&founder, log, evidence, &forget).await.map_err(raft_failure)?;
    tell_done(&refounded);
    Ok(())
}

const WARNING: &str = "
WARNING: this founds a NEW cluster with what is on THIS disk.
  - Pushes that other replicas acknowledged and this one has not received are lost.
  - Tags may point to where they pointed before their last move; what was deleted lately may be back.
  - Every other replica of the old cluster must stay off for ever. It is refused here, but clients that
    still reach it are served from the old history.
  - If a majority of the old replicas can still be brought back, stop: start them instead, nothing is lost.
";

fn tell_found(
    survivor: &Survivor,
    data: &DataDir,
    log: SurvivingLog,
) -> Result<Inventory, Failure> {
    let survey = survivor.survey();
    let identity = &survey.identity;
    print::line(&format!("data directory  {}", data.root().display()));
    print::line(&format!("cluster         {}", identity.cluster_id));
    print::line(&format!("replica         {} (node {})", identity.name, identity.node_id));
    print::line(&format!("applied         index {} of term {}", survey.applied, survey.term));
    match (&survey.log_problem, survey.log_end) {
        (Some(problem), _) => print::line(&format!("log             CANNOT BE READ: {problem}")),
        (None, Some(end)) if end > survey.applied => {
            let sure = survey.committed - survey.applied;
            let unsure = end.saturating_sub(survey.committed);
            let what = match log {
                SurvivingLog::Apply => "will be applied",
                SurvivingLog::Ignore => "are left out (--ignore-log)",
            };
            print::line(&format!(
                "log             {sure} entries more that were committed, and {unsure} whose outcome this \
                 replica does not know: they {what}"
            ));
        }
        (None, _) => print::line("log             nothing beyond what was applied"),
    }
    for (name, id, address) in &survey.members {
        print::line(&format!("member          {name} (node {id}) {address}"));
    }
    let looked = survivor.read(|meta| {
        let inventory = Inventory::take(meta, data)?;
        let images = incomplete(meta, &inventory.lost)?;
        Ok((inventory, images))
    });
    let (inventory, images) = looked.or_exit(Exit::Io)?.map_err(storage_failure)?;
    print::line(&format!(
        "blobs           {} on this disk ({}), {} missing ({})",
        inventory.present,
        bytes(inventory.present_bytes),
        inventory.lost.len(),
        bytes(inventory.lost_bytes())
    ));
    tell_images(&images);
    Ok(inventory)
}

/// The first replica of a cluster votes.
pub(super) fn refuse_edge(config: &Config) -> Result<(), Failure> {
    if config.node.role == NodeRole::Edge {
        let message = "node.role is \"edge\": an edge never votes and cannot found a cluster. Use the configuration of a voter";
        return Err(Failure::new(Exit::Config, message));
    }
    Ok(())
}

/// The images that cannot be pulled whole.
pub(super) fn tell_images(images: &[Incomplete]) {
    if images.is_empty() {
        return;
    }
    print::line(&format!("\n{} images lack blobs:", images.len()));
    for image in images.iter().take(IMAGES_SHOWN) {
        print::line(&format!("  {} ({} blobs)", image.label(), image.lost));
    }
    if let Some(more) = images.len().checked_sub(IMAGES_SHOWN).filter(|more| *more > 0) {
        print::line(&format!("  … and {more} more"));
    }
}

fn tell_done(refounded: &Refounded) {
    let identity = &refounded.identity;
    print::line(&format!(
        "\nNew cluster {} with the single replica {} (node {}), at index {}.",
        identity.cluster_id, identity.name, identity.node_id, refounded.applied
    ));
    if let Some(evidence) = &refounded.evidence {
        print::line(&format!("The old databases and identity are in {}.", evidence.display()));
    }
    print::line(
        "Next: start this replica, then the others, each with an EMPTY data directory; they join by themselves.",
    );
}
