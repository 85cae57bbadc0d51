//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use crate::kv::codec::CodecError;
use crate::{Digest, UploadId};

/// What can go wrong with bytes at rest. A failed fsync is not here: it ends the process (see
/// [`crate::fatal::die`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused a file operation.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk is full, or so nearly that only Raft may still write. HTTP 507.
    #[error("no space for {needed} bytes at {}: {available} available, the disk is kept below {refuse_percent} % and {headroom} bytes are reserved", path.display())]
    NoSpace {
        /// The volume's directory.
        path: PathBuf,
        /// Bytes asked for.
        needed: u64,
        /// Bytes the file system would still give.
        available: u64,
        /// The configured watermark.
        refuse_percent: u8,
        /// The configured headroom in bytes.
        headroom: u64,
    },
    /// The volume has so few inodes left that only Raft may still make files. HTTP 507.
    #[error("no inodes for content at {}: {available} of {total} inodes are available, use is kept below {refuse_percent} %", path.display())]
    NoInodes {
        /// The volume's directory.
        path: PathBuf,
        /// Inodes left.
        available: u64,
        /// Inodes in all.
        total: u64,
        /// The configured watermark.
        refuse_percent: u8,
    },
    /// A database could not be opened because the volume is full. It is unharmed.
    #[error("{operation} database {}: the volume is full ({source}). Make room there, or make the volume larger, and start again: nothing is lost", path.display())]
    VolumeFull {
        /// What was attempted.
        operation: &'static str,
        /// The database's directory.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// Another process uses the data directory.
    #[error("TERCET-M07: {} is locked: another tercet process uses this data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// RocksDB refused an operation.
    #[error("{operation} database {}: {source}", path.display())]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// The database's directory.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// A database is damaged where a torn last write cannot explain it. Opening it with less than it
    /// held would let this replica break promises it made to others.
    #[error("database {} is corrupt ({reason}). This replica cannot go on with it: stop it, remove its whole data directory and start it again; it will join as a new member and copy everything from the others", path.display())]
    Corrupt {
        /// The database's directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A record in a database does not decode.
    #[error("record in table {table}: {source}")]
    Record {
        /// The table.
        table: &'static str,
        /// Why it does not decode.
        source: CodecError,
    },
    /// An envelope does not decode, or a value cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A key in a database has not the shape its table prescribes.
    #[error("key in table {table} is malformed: {key:?}")]
    Key {
        /// The table.
        table: &'static str,
        /// The key, lossily as text.
        key: String,
    },
    /// The content received is not what its digest says. Nothing of it was kept.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what arrived.
        actual: Digest,
    },
    /// The content received is shorter or longer than announced. Nothing of it was kept.
    #[error("content of {digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The digest asked for.
        digest: Digest,
        /// The size announced.
        expected: u64,
        /// The size seen (so far, when it is too long).
        actual: u64,
    },
    /// A published blob no longer hashes to its digest. It was moved to quarantine.
    #[error("blob {digest} is corrupt on disk: {reason}")]
    CorruptBlob {
        /// The blob.
        digest: Digest,
        /// What was found instead.
        reason: String,
    },
    /// A range starts at or after the end of a blob. HTTP 416.
    #[error("range starts at {start}, {digest} has {size} bytes")]
    Range {
        /// The blob.
        digest: Digest,
        /// Where the range starts.
        start: u64,
        /// The blob's size in bytes.
        size: u64,
    },
    /// An upload with this id exists already.
    #[error("upload {0} exists already")]
    UploadExists(UploadId),
    /// An upload is open elsewhere in this process: it has one writer at a time.
    #[error("upload {0} is in use by another request")]
    UploadBusy(UploadId),
    /// An upload cannot be cut to an offset it has not reached.
    #[error("upload {id} has {actual} bytes, cannot be cut to {wanted}")]
    UploadOffset {
        /// The upload.
        id: UploadId,
        /// The offset asked for.
        wanted: u64,
        /// The bytes there are.
        actual: u64,
    },
    /// A blocking file task was cancelled, which happens only while the process stops.
    #[error("{operation} was cancelled: the process is stopping")]
    Cancelled {
        /// What was attempted.
        operation: &'static str,
    },
}

impl StorageError {
    /// Wraps what the system said about `operation` on `path`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// Whether this means that the process, or the system, may have no more files open.
    #[must_use]
    pub fn is_out_of_files(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        let code = source.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
        matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
    }

    /// Whether the disk itself cannot give back what was written to it (`EIO`).
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        let eio = rustix::io::Errno::IO.raw_os_error();
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(eio))
    }

    /// Whether this means that the disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::NoInodes { .. } | Self::VolumeFull { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}
