//! `backups/<id>.json`: what one backup is made of.

use serde::{Deserialize, Serialize};
use tercet_storage::Digest;

use super::error::BackupError;
use super::wire::{MetadataFile, is_file_name};

/// The newest layout that this version writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Layout of the backup.
    pub(crate) format_version: u32,
    /// Its name.
    pub(crate) id: String,
    /// The cluster it was taken of.
    pub(crate) cluster_id: String,
    /// The replica that made the checkpoint.
    pub(crate) replica: String,
    /// Version of that replica.
    pub(crate) tercet_version: String,
    /// Feature level of the cluster: what restores it must know this level.
    pub(crate) feature_level: u32,
    /// Index of the last entry in it.
    pub(crate) index: u64,
    /// Term of that entry.
    pub(crate) term: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
    /// The checkpoint's files.
    pub(crate) files: Vec<MetadataFile>,
    /// Blobs that it references and that are in the backup.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) blob_bytes: u64,
    /// Blobs that it references and that no replica could send.
    #[serde(default)]
    pub(crate) missing: Vec<Digest>,
}

impl Manifest {
    /// Reads and checks one; `what` names it in errors.
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
            #[serde(default)]
            tercet_version: String,
        }
        let damaged = |error: serde_json::Error| BackupError::damaged(what, error.to_string());
        let version: Version = serde_json::from_slice(bytes).map_err(damaged)?;
        if version.format_version > FORMAT_VERSION {
            return Err(BackupError::Version(format!(
                "{what} has format {}, this version reads up to {FORMAT_VERSION}: use Tercet {} or newer",
                version.format_version, version.tercet_version
            )));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        let named = is_file_name(&manifest.id)
            && manifest.files.iter().all(|file| is_file_name(&file.name));
        if !named {
            return Err(BackupError::damaged(what, "it names a file that cannot be in a backup"));
        }
        Ok(manifest)
    }

    /// As written.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, BackupError> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| BackupError::damaged(self.id.clone(), error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format_version: FORMAT_VERSION,
            id: "20261122T120000Z-tercet-0".into(),
            cluster_id: "c".into(),
            replica: "tercet-0".into(),
            tercet_version: "0.1.0".into(),
            feature_level: 2,
            index: 7,
            term: 1,
            created_ms: 1,
            files: Vec::new(),
            blobs: 0,
            blob_bytes: 0,
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest();
        assert_eq!(Manifest::parse(&manifest.to_bytes().unwrap(), "x").unwrap(), manifest);
    }

    #[test]
    fn a_newer_format_and_a_name_that_leaves_the_directory_are_refused() {
        let newer = Manifest { format_version: FORMAT_VERSION + 1, ..manifest() };
        let error = Manifest::parse(&newer.to_bytes().unwrap(), "x").unwrap_err();
        assert!(matches!(&error, BackupError::Version(text) if text.contains("0.1.0")), "{error}");
        let outside = Manifest { id: "../x".into(), ..manifest() };
        let error = Manifest::parse(&outside.to_bytes().unwrap(), "x").unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. }), "{error}");
    }
}
