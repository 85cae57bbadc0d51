//! Makes the data directory of a new cluster out of a backup.
//!
//! Order: a mark, with which no replica starts; the metadata; the blobs, each verified before it has its
//! name; the new identity. A restore that was interrupted is run again and goes on with the blobs it has.

mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tercet_raft::{Founder, Refounded, begin_restore, refound_checkpoint, restored_state};
use tercet_storage::{
    DataDir, Digest, Meta, StateDb, create_dir_durable, remove_dir_durable, sync_dir,
};

use crate::backup::archive::{self, Member};
use crate::backup::progress::Progress;
use crate::backup::verified::copy_verified;
use crate::backup::wire::MetadataFile;
use crate::backup::{BackupDir, BackupError, Manifest};
use crate::exit::{Exit, Failure, OrExit};
use crate::fsck::lost::{Incomplete, for_each_blob_record, incomplete};
use copy::{Copying, copy_all};

/// What to do with blobs that are damaged or absent in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// Nothing is founded.
    Stop,
    /// The new cluster does not know them: the next push of their images brings them again.
    Forget,
}

/// How a blob gets from a backup directory into the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Its bytes are copied.
    Copy,
    /// It gets a second name, where both are on one file system.
    Link,
}

/// A backup to restore.
#[derive(Debug)]
pub(crate) struct Source {
    manifest: Manifest,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Directory(BackupDir),
    File(PathBuf),
}

impl Source {
    /// Opens a directory, or a `.tar` file; `id` names one of several backups, the newest otherwise.
    pub(crate) fn open(path: &Path, id: Option<&str>) -> Result<Self, BackupError> {
        if path.is_dir() {
            let directory = BackupDir::open(path)?;
            let manifest = directory.choose(id)?;
            return Ok(Self { manifest, kind: Kind::Directory(directory) });
        }
        let manifest = archive::read_manifest(path)?;
        if let Some(id) = id.filter(|id| *id != manifest.id) {
            let message = format!("{} is backup {}, not {id}", path.display(), manifest.id);
            return Err(BackupError::Unknown(message));
        }
        Ok(Self { manifest, kind: Kind::File(path.to_owned()) })
    }

    /// What it is made of.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// A restored directory.
#[derive(Debug)]
pub(crate) struct Restored {
    /// The new cluster.
    pub(crate) refounded: Refounded,
    /// Blobs in it.
    pub(crate) blobs: usize,
    /// Referenced blobs that the backup does not have, or that are damaged in it.
    pub(crate) lost: BTreeMap<Digest, u64>,
    /// The images that lack them.
    pub(crate) images: Vec<Incomplete>,
}

/// Fills `data`, whose lock the caller holds, and founds the cluster.
pub(crate) fn restore(
    source: &Source,
    data: &DataDir,
    founder: &Founder,
    transfer: Transfer,
    on_damage: OnDamage,
) -> Result<Restored, Failure> {
    let manifest = &source.manifest;
    if manifest.feature_level > tercet_raft::FEATURE_LEVEL {
        let message = format!(
            "the backup is of a cluster with feature level {}, this version knows {}: use Tercet {} or newer",
            manifest.feature_level,
            tercet_raft::FEATURE_LEVEL,
            manifest.tercet_version
        );
        return Err(Failure::new(Exit::Data, message));
    }
    check_empty(data)?;
    begin_restore(data, &founder.name, &manifest.id).map_err(crate::app::raft_failure)?;
    restore_metadata(source, data)?;
    let Catalogue { referenced, mut forgotten } = read_catalogue(data)?;
    let total = referenced.values().sum();
    check_room(data, &referenced)?;
    let progress = Progress::new("restoring", total);
    let incoming = data.root().join("refound.new").join("blobs");
    create_dir_durable(&incoming).or_exit(Exit::Io)?;
    let copying =
        Copying { data, incoming: &incoming, referenced: &referenced, progress: &progress };
    let damaged = match &source.kind {
        Kind::Directory(directory) => copy_all(&copying, directory, transfer),
        Kind::File(path) => copying.unpack(path, manifest),
    };
    let damaged = damaged.map_err(failure)?;
    progress.finish();
    let mut lost = BTreeMap::new();
    for (digest, size) in &referenced {
        if !data.blob(digest).exists() {
            lost.insert(digest.clone(), *size);
        }
    }
    // What the backup itself says it lacks is no damage.
    let known: BTreeSet<&Digest> = manifest.missing.iter().collect();
    let unexpected = lost.keys().filter(|digest| !known.contains(digest)).count();
    if unexpected > 0 && on_damage == OnDamage::Stop {
        let message = format!(
            "{unexpected} blobs of the backup are damaged or absent ({}); nothing is founded yet. Repair the backup (`tercet backup --verify` fetches again what has rotted), or go on without them with --forget-damaged",
            damaged.join("; ")
        );
        return Err(Failure::new(Exit::Data, message));
    }
    let images = affected(data, &lost)?;
    forgotten.extend(lost.keys().cloned());
    remove_dir_durable(&incoming).or_exit(Exit::Io)?;
    let refounded =
        refound_checkpoint(data, founder, &forgotten).map_err(crate::app::raft_failure)?;
    Ok(Restored { refounded, blobs: referenced.len() - lost.len(), lost, images })
}

struct Catalogue {
    /// Blobs that a manifest names, with their sizes.
    referenced: BTreeMap<Digest, u64>,
    /// Blobs that nothing named when the backup was taken: it does not have them.
    forgotten: Vec<Digest>,
}

fn read_catalogue(data: &DataDir) -> Result<Catalogue, Failure> {
    let db = StateDb::open(&restored_state(data)).map_err(crate::app::storage_failure)?;
    let mut catalogue = Catalogue { referenced: BTreeMap::new(), forgotten: Vec::new() };
    for_each_blob_record(Meta(&db), |digest, record| {
        if record.references > 0 {
            catalogue.referenced.insert(digest.clone(), record.size);
        } else {
            catalogue.forgotten.push(digest.clone());
        }
        Ok(())
    })
    .map_err(crate::app::storage_failure)?;
    Ok(catalogue)
}

fn affected(data: &DataDir, lost: &BTreeMap<Digest, u64>) -> Result<Vec<Incomplete>, Failure> {
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let db = StateDb::open(&restored_state(data)).map_err(crate::app::storage_failure)?;
    incomplete(Meta(&db), lost).map_err(crate::app::storage_failure)
}

fn restore_metadata(source: &Source, data: &DataDir) -> Result<(), Failure> {
    let manifest = &source.manifest;
    let target = restored_state(data);
    create_dir_durable(&target).or_exit(Exit::Io)?;
    let mut left: BTreeMap<&str, &MetadataFile> =
        manifest.files.iter().map(|file| (file.name.as_str(), file)).collect();
    match &source.kind {
        Kind::Directory(directory) => {
            for (_, file) in std::mem::take(&mut left) {
                let path = directory.metadata(&manifest.id).join(&file.name);
                let content = File::open(&path).map_err(BackupError::io("open", &path));
                let content = content.map_err(failure)?;
                take_metadata(&target, file, content).map_err(failure)?;
            }
        }
        Kind::File(path) => archive::for_each(path, manifest, |member, content| match member {
            Member::Metadata(name) => match left.remove(name.as_str()) {
                Some(file) => take_metadata(&target, file, content),
                None => Err(BackupError::damaged(name, "the backup does not list it")),
            },
            Member::Blob(_) => Ok(()),
        })
        .map_err(failure)?,
    }
    if let Some((name, _)) = left.first_key_value() {
        let error = BackupError::damaged(manifest.id.clone(), format!("{name} is not in it"));
        return Err(failure(error));
    }
    sync_dir(&target).or_exit(Exit::Io)
}

fn take_metadata(
    directory: &Path,
    file: &MetadataFile,
    content: impl std::io::Read,
) -> Result<(), BackupError> {
    let target = directory.join(&file.name);
    let temporary = directory.join("incoming.tmp");
    copy_verified(content, &temporary, &target, &file.digest, file.size, |_| {})
}

/// Only what an earlier attempt at a restore made may be there.
fn check_empty(data: &DataDir) -> Result<(), Failure> {
    if tercet_raft::Unfinished::load(data).map_err(crate::app::raft_failure)?.is_some() {
        return Ok(());
    }
    for entry in fs::read_dir(data.root()).or_exit(Exit::Io)? {
        let name = entry.or_exit(Exit::Io)?.file_name();
        if name != "lock" && name != "lost+found" {
            let message = format!(
                "{} is not empty (it holds `{}`): a restore never overwrites anything",
                data.root().display(),
                name.display()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    Ok(())
}

/// Before hours of copying, not after.
fn check_room(data: &DataDir, referenced: &BTreeMap<Digest, u64>) -> Result<(), Failure> {
    let absent = referenced.iter().filter(|(digest, _)| !data.blob(digest).exists());
    let needed: u64 = absent.map(|(_, size)| size).sum();
    let volume = rustix::fs::statvfs(data.root()).or_exit(Exit::Io)?;
    let available = volume.f_bavail.saturating_mul(volume.f_frsize);
    if needed > available {
        let message = format!(
            "the backup needs {} and {} has {} left",
            crate::text::bytes(needed),
            data.root().display(),
            crate::text::bytes(available)
        );
        return Err(Failure::new(Exit::Io, message));
    }
    Ok(())
}

fn failure(error: BackupError) -> Failure {
    crate::cli::backup_failure(error)
}
