//! `tercet restore`: a new cluster out of a backup.

use std::path::PathBuf;

use clap::Args;
use tercet_raft::Founder;
use tercet_storage::{Clock, DataDir, SystemClock};

use super::backup::failure;
use super::recover::{refuse_edge, tell_images};
use super::{ConfigArgs, print};
use crate::app::storage_failure;
use crate::exit::{Exit, Failure, OrExit};
use crate::restore::{OnDamage, Source, Transfer, restore};
use crate::text::bytes;

/// Make the data directory of a new cluster of one replica out of a backup; others then join it with
/// empty disks
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// A directory of backups, or a .tar file with one
    #[arg(long, value_name = "DIR|FILE.tar")]
    from: PathBuf,
    /// Which backup of the directory [default: the newest]
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Give blobs a second name instead of copying them, where backup and data directory share a file
    /// system
    #[arg(long)]
    link: bool,
    /// Go on without blobs that are damaged in the backup; the next push of their images brings them again
    #[arg(long)]
    forget_damaged: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: RestoreArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    refuse_edge(&config)?;
    let founder = Founder {
        name: config.node.name.clone(),
        address: config.peer_address(),
        now_ms: SystemClock.now_ms(),
    };
    // Reading, hashing and writing from here on: not on a thread that others need.
    tokio::task::spawn_blocking(move || {
        let source = Source::open(&args.from, args.backup.as_deref()).map_err(failure)?;
        let manifest = source.manifest();
        print::line(&format!(
            "backup {} of cluster {}: index {}, {} blobs ({}), by Tercet {}",
            manifest.id,
            manifest.cluster_id,
            manifest.index,
            manifest.blobs,
            bytes(manifest.blob_bytes),
            manifest.tercet_version
        ));
        let data = DataDir::new(&config.node.data_dir);
        let _lock = data.lock().map_err(storage_failure)?;
        let transfer = if args.link { Transfer::Link } else { Transfer::Copy };
        let on_damage = if args.forget_damaged { OnDamage::Forget } else { OnDamage::Stop };
        let restored = restore(&source, &data, &founder, transfer, on_damage)?;
        tell_images(&restored.images);
        let identity = &restored.refounded.identity;
        print::line(&format!(
            "{} blobs restored, each verified; {} lost",
            restored.blobs,
            restored.lost.len()
        ));
        print::line(&format!(
            "New cluster {} with the single replica {} (node {}), at index {}, in {}.",
            identity.cluster_id,
            identity.name,
            identity.node_id,
            restored.refounded.applied,
            data.root().display()
        ));
        print::line(
            "Next: start this replica, then the others, each with an EMPTY data directory; they join by themselves.",
        );
        Ok(())
    })
    .await
    .or_exit(Exit::Software)?
}
