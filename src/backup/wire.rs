//! What a replica says about a backup that is being taken of it.

use serde::{Deserialize, Serialize};
use tercet_storage::Digest;

use crate::peer::Peer;

/// How long a replica keeps a checkpoint, and the cluster its blobs, without being asked again, in seconds.
pub(crate) const HOLD_SECONDS: u64 = 600;

/// Answer to `POST /admin/backups`: the checkpoint is taken, and nothing is collected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BackupBegun {
    /// Names the backup: the time, and the index.
    pub(crate) id: String,
    /// The cluster.
    pub(crate) cluster_id: String,
    /// The replica whose checkpoint it is.
    pub(crate) replica: String,
    /// Version of its binary.
    pub(crate) tercet_version: String,
    /// What every member understands.
    pub(crate) feature_level: u32,
    /// Index of the last entry in the checkpoint.
    pub(crate) index: u64,
    /// Term of that entry.
    pub(crate) term: u64,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
    /// The checkpoint's files.
    pub(crate) files: Vec<MetadataFile>,
    /// Whom to ask for blobs, the replica itself first.
    pub(crate) members: Vec<Member>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetadataFile {
    /// Its name, without a directory.
    pub(crate) name: String,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// What its bytes hash to.
    pub(crate) digest: Digest,
}

/// A replica that may have blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its Raft id.
    pub(crate) node_id: u64,
    /// Base URL of its peer listener.
    pub(crate) address: String,
}

impl From<&Peer> for Member {
    fn from(peer: &Peer) -> Self {
        Self { name: peer.name.clone(), node_id: peer.node_id, address: peer.address.clone() }
    }
}

/// Whether a name can be that of a checkpoint's file: it becomes part of a path.
pub(crate) fn is_file_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(good)
}
