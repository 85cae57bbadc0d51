//! The content of the files, for parsing and for telling whether it has changed.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::error::TlsFault;
use super::spec::TlsSpec;

/// Chains have a few KiB. What has more is not meant, and is not read into memory again and again.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of one file, or why there are none.
pub(super) type Content = Result<Vec<u8>, TlsFault>;

/// What the files of a listener hold. It has no `Debug`: one of them is a private key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) certificate: Content,
    pub(super) key: Content,
    pub(super) authorities: Option<Content>,
}

impl Contents {
    /// Reads every file of a listener. Blocks.
    pub(super) fn read(spec: &TlsSpec) -> Self {
        Self {
            certificate: read(&spec.certificate),
            key: read(&spec.key),
            authorities: spec.authorities().map(read),
        }
    }
}

fn read(path: &Path) -> Content {
    if path.as_os_str().is_empty() {
        return Err(TlsFault::Unnamed);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => TlsFault::Missing,
            ErrorKind::PermissionDenied => TlsFault::Forbidden,
            _ => TlsFault::Unreadable(error.to_string()),
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsFault::TooLarge);
    }
    Ok(bytes)
}
