//! What can go wrong with a backup.

use std::io;
use std::path::{Path, PathBuf};

use tercet_storage::{Digest, StorageError};

/// A backup that cannot be taken, read or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The operating system refused a file operation.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another run writes to this backup.
    #[error("{} is in use by another backup", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such backup.
    #[error("{0}")]
    Unknown(String),
    /// A file is not what the backup says.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// Which file or blob.
        what: String,
        /// How.
        reason: String,
    },
    /// Another version wrote it.
    #[error("{0}")]
    Version(String),
    /// No replica could send a blob.
    #[error("no replica could send {digest}: {reason}")]
    NoSource {
        /// The blob.
        digest: Digest,
        /// What the last one said.
        reason: String,
    },
    /// The disk below, or a database.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl BackupError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), reason: reason.into() }
    }
}
