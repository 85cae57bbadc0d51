//! `tercet backup`: a running cluster, into a directory or a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use tercet_storage::{Digest, create_dir_durable, remove_dir_durable};

use super::admin::{AdminClient, Asked};
use super::print;
use crate::backup::archive::{self, beside};
use crate::backup::fetch::Sources;
use crate::backup::manifest::FORMAT_VERSION;
use crate::backup::progress::Progress;
use crate::backup::verified::{Incoming, hash_file_as};
use crate::backup::wire::{BackupBegun, HOLD_SECONDS, MetadataFile, is_file_name};
use crate::backup::{BackupDir, BackupError, Manifest};
use crate::exit::{Exit, Failure, OrExit};
use crate::peer::Peer;
use crate::text::bytes;

/// Blobs fetched at once.
const PARALLEL: usize = 4;
/// Time between two requests to keep everything in its place.
const HOLD_PAUSE: Duration = Duration::from_secs(HOLD_SECONDS / 10);

/// Back a running cluster up: all metadata as of one moment, and every blob that it references
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// A directory, which may hold earlier backups: only what is new is fetched. Or a file that ends in
    /// .tar: one full backup
    #[arg(long, value_name = "DIR|FILE.tar")]
    to: PathBuf,
    /// Also read again what earlier backups have left, and fetch what has rotted
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    asked: Asked,
}

pub(super) async fn run(args: BackupArgs) -> Result<(), Failure> {
    let client = args.asked.connect().await?;
    let as_file = args.to.extension().is_some_and(|extension| extension == "tar");
    // A file is made of a directory: so a killed run goes on too.
    let place = if as_file { beside(&args.to, "parts") } else { args.to.clone() };
    let directory = BackupDir::open_to_write(&place).map_err(failure)?;
    let begun: BackupBegun = client.post_json("/admin/backups", &()).await?;
    print::line(&format!(
        "backup {} of cluster {}: index {}, {} files of metadata",
        begun.id,
        begun.cluster_id,
        begun.index,
        begun.files.len()
    ));
    let run = Run { client: &client, directory: &directory, begun: &begun };
    let taken = tokio::select! {
        taken = run.take(args.verify) => taken,
        error = run.keep_holding() => Err(error),
    };
    // Whatever came of it, the replica need not wait for more.
    let ended: Result<(), Failure> =
        client.post_json(&format!("/admin/backups/{}/end", begun.id), &()).await;
    let (manifest, blobs) = taken?;
    if let Err(error) = ended {
        print::problem(&format!("tercet: the replica was not told of the end: {error}"));
    }
    if as_file {
        let progress = Progress::new("packing", manifest.blob_bytes);
        archive::write(&directory, &manifest, &blobs, &args.to, &progress).map_err(failure)?;
        progress.finish();
        drop(directory);
        remove_dir_durable(&place).or_exit(Exit::Io)?;
    }
    tell(&manifest, &args.to)
}

fn tell(manifest: &Manifest, to: &Path) -> Result<(), Failure> {
    print::line(&format!(
        "backup {} is complete in {}: {} blobs, {}",
        manifest.id,
        to.display(),
        manifest.blobs,
        bytes(manifest.blob_bytes)
    ));
    if manifest.missing.is_empty() {
        return Ok(());
    }
    for digest in &manifest.missing {
        print::problem(&format!("missing: {digest}"));
    }
    let message = format!(
        "{} blobs that images need could not be had from any replica; the backup holds everything else. `tercet status` shows what the cluster misses",
        manifest.missing.len()
    );
    Err(Failure::new(Exit::Data, message))
}

struct Run<'a> {
    client: &'a AdminClient,
    directory: &'a BackupDir,
    begun: &'a BackupBegun,
}

impl Run<'_> {
    async fn take(&self, verify: bool) -> Result<(Manifest, Vec<(Digest, u64)>), Failure> {
        let begun = self.begun;
        let directory = self.directory.metadata(&begun.id);
        create_dir_durable(&directory).or_exit(Exit::Io)?;
        for file in &begun.files {
            self.fetch_metadata(&directory, file).await?;
        }
        let mut wanted = self.directory.referenced(&begun.id).map_err(failure)?;
        let missing = self.fetch_blobs(&wanted, verify).await?;
        wanted.retain(|(digest, _)| !missing.contains(digest));
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            id: begun.id.clone(),
            cluster_id: begun.cluster_id.clone(),
            replica: begun.replica.clone(),
            tercet_version: begun.tercet_version.clone(),
            feature_level: begun.feature_level,
            index: begun.index,
            term: begun.term,
            created_ms: begun.created_ms,
            files: begun.files.clone(),
            blobs: wanted.len() as u64,
            blob_bytes: wanted.iter().map(|(_, size)| size).sum(),
            missing,
        };
        self.directory.publish(&manifest).map_err(failure)?;
        Ok((manifest, wanted))
    }

    async fn fetch_metadata(&self, to: &Path, file: &MetadataFile) -> Result<(), Failure> {
        if !is_file_name(&file.name) {
            let message = format!("the replica offers a file named `{}`", file.name);
            return Err(Failure::new(Exit::Data, message));
        }
        let path = format!("/admin/backups/{}/files/{}", self.begun.id, file.name);
        let mut stream = self.client.stream(&path).await?;
        let target = to.join(&file.name);
        let mut incoming =
            Incoming::create(&beside(&target, "tmp"), file.digest.algorithm()).map_err(failure)?;
        while let Some(chunk) = stream.next().await? {
            incoming.write(&chunk).map_err(failure)?;
        }
        incoming.publish(&file.digest, file.size, &target).map_err(failure)
    }

    /// Returns the blobs that no replica could send.
    async fn fetch_blobs(
        &self,
        wanted: &[(Digest, u64)],
        verify: bool,
    ) -> Result<Vec<Digest>, Failure> {
        let mut absent = Vec::new();
        let mut here = 0;
        for (digest, size) in wanted {
            if self.is_here(digest, *size, verify).await.map_err(failure)? {
                here += 1;
            } else {
                absent.push((digest.clone(), *size));
            }
        }
        let total = absent.iter().map(|(_, size)| size).sum();
        print::line(&format!(
            "{} blobs are referenced, {here} are here already, {} to fetch ({})",
            wanted.len(),
            absent.len(),
            bytes(total)
        ));
        let progress = Progress::new("fetching", total);
        let sources = self.sources();
        let fetched = stream::iter(absent)
            .map(|(digest, size)| {
                let (sources, progress) = (&sources, &progress);
                async move {
                    match sources.fetch(self.directory, &digest, size, progress).await {
                        Ok(()) => Ok(None),
                        Err(BackupError::NoSource { digest, reason }) => {
                            print::problem(&format!("tercet: {digest} is missing: {reason}"));
                            Ok(Some(digest))
                        }
                        Err(error) => Err(failure(error)),
                    }
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        progress.finish();
        Ok(fetched.into_iter().flatten().collect())
    }

    /// With `verify` the bytes count and not the name; a file that has rotted is removed.
    async fn is_here(&self, digest: &Digest, size: u64, verify: bool) -> Result<bool, BackupError> {
        // So that the hold is renewed beside many of these.
        tokio::task::yield_now().await;
        if !self.directory.has_blob(digest, size)? {
            return Ok(false);
        }
        if !verify {
            return Ok(true);
        }
        let path = self.directory.blob(digest);
        let (read, algorithm) = (path.clone(), digest.algorithm());
        let hashed = tokio::task::spawn_blocking(move || hash_file_as(&read, algorithm)).await;
        let hashed = hashed.map_err(std::io::Error::other).and_then(|hashed| hashed);
        let (_, actual) = hashed.map_err(BackupError::io("read", &path))?;
        if actual == *digest {
            return Ok(true);
        }
        print::problem(&format!("tercet: {} has rotted, it is fetched again", path.display()));
        fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
        Ok(false)
    }

    /// The replica that was asked first, by the address at which it answers here.
    fn sources(&self) -> Sources {
        let (client, asked) = self.client.peers();
        let others = self.begun.members.iter().filter(|member| member.node_id != asked.node_id);
        let others = others.map(|member| Peer {
            name: member.name.clone(),
            node_id: member.node_id,
            address: member.address.clone(),
            ..asked.clone()
        });
        let peers = std::iter::once(asked.clone()).chain(others).collect();
        Sources { client: client.clone(), peers }
    }

    /// Keeps the checkpoint and the blobs in their place for as long as the work lasts; returns only when
    /// that cannot be done any more.
    async fn keep_holding(&self) -> Failure {
        let path = format!("/admin/backups/{}/hold", self.begun.id);
        let mut last_good = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(HOLD_PAUSE).await;
            let held: Result<(), Failure> = self.client.post_json(&path, &()).await;
            match held {
                Ok(()) => last_good = tokio::time::Instant::now(),
                Err(error) if error.exit == Exit::Unavailable => {
                    if last_good.elapsed() > Duration::from_secs(HOLD_SECONDS) {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }
}

/// The exit code of what went wrong with a backup.
pub(crate) fn failure(error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Io { .. } => Exit::Io,
        BackupError::Locked { .. } | BackupError::NoSource { .. } => Exit::Unavailable,
        BackupError::Unknown(_) => Exit::Usage,
        BackupError::Damaged { .. } | BackupError::Version(_) => Exit::Data,
        BackupError::Storage(_) => Exit::Io,
    };
    match error {
        BackupError::Storage(error) => crate::app::storage_failure(error),
        error => Failure { exit, error: error.into() },
    }
}
