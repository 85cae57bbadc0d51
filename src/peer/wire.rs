//! The words of the peer protocol: paths, headers and JSON bodies.

use serde::{Deserialize, Serialize};
use tercet_storage::{Algorithm, Digest, Fence, RepositoryName};

use crate::registry::GcStatus;
use crate::scrub::ScrubStatus;

/// Cluster the sender belongs to. A peer of another cluster is refused with `409`.
pub const CLUSTER_HEADER: &str = "tercet-cluster-id";
/// Node id the request is meant for. Another node at that address refuses with `421`.
pub const TARGET_HEADER: &str = "tercet-target-node";
/// Node id of the sender, for log lines.
pub const SENDER_HEADER: &str = "tercet-sender-node";
/// On a refusal: nothing behind the peer listener has seen the request.
pub const NOT_DELIVERED_HEADER: &str = "tercet-not-delivered";
/// What all of the above begin with; such headers of clients are never passed on.
pub const HEADER_PREFIX: &str = "tercet-";
/// Path prefix of requests that another replica passes on.
pub const FORWARD_PREFIX: &str = "/forward";
/// Path prefix of what an operator asks of a replica.
pub const ADMIN_PREFIX: &str = "/admin";

/// Largest Raft message and largest answer to one, in bytes.
pub const RPC_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest JSON body between peers, in bytes.
pub const JSON_BYTES_MAX: usize = 64 * 1024;

/// How the bytes of an algorithm's name travel in a query.
pub(super) fn parse_algorithm(name: &str) -> Option<Algorithm> {
    [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|a| a.name() == name)
}

/// What a holder says about its copy of an upload session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Bytes it has.
    pub offset: u64,
    /// Repository the upload goes to.
    pub repository: RepositoryName,
    /// Name of the running hash.
    pub algorithm: String,
    /// Who may write to it.
    #[serde(default)]
    pub fence: Fence,
}

/// Body of a `416` on a session: where the holder's copy really ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetAnswer {
    /// Bytes the holder has.
    pub offset: u64,
}

/// Query of `POST /peer/sessions/{id}`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SessionCreate {
    /// Repository the upload goes to.
    pub repository: RepositoryName,
    /// Name of the running hash.
    pub algorithm: String,
    /// Bytes the owner has; a holder with more of them cuts back to here.
    pub offset: u64,
    /// See [`Fence`]; absent for the replica that opened the session.
    #[serde(default)]
    pub epoch: u64,
    /// See [`Fence`].
    #[serde(default)]
    pub server: u64,
}

/// Query of `DELETE /peer/sessions/{id}`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct SessionDelete {
    /// See [`Fence`].
    #[serde(default)]
    pub epoch: u64,
    /// See [`Fence`].
    #[serde(default)]
    pub server: u64,
}

/// Query of `PATCH /peer/sessions/{id}`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct SessionAppend {
    /// Where the body begins.
    pub offset: u64,
    /// See [`Fence`].
    #[serde(default)]
    pub epoch: u64,
    /// See [`Fence`].
    #[serde(default)]
    pub server: u64,
}

/// Query of `POST /peer/sessions/{id}/finish`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SessionFinish {
    /// What all the bytes must hash to.
    pub digest: String,
    /// How many bytes there must be.
    pub size: u64,
    /// See [`Fence`].
    #[serde(default)]
    pub epoch: u64,
    /// See [`Fence`].
    #[serde(default)]
    pub server: u64,
}

/// Query of `POST /peer/blobs/{digest}`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct BlobPush {
    /// Size of the blob in bytes.
    pub size: u64,
}

/// The most blobs that may be asked about at a time.
pub const CONFIRM_MAX: usize = 64;

/// A blob and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSize {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Body of `POST /peer/confirm`: does the peer hold these so surely that the sender needs no copy?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// At most [`CONFIRM_MAX`].
    pub blobs: Vec<BlobSize>,
}

/// The answer to [`Confirm`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Those that are placed on the peer, and on its disk: whole, verified and durable.
    pub digests: Vec<Digest>,
}

/// What a replica says about itself on `GET /peer/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its configured name.
    pub name: String,
    /// Its Raft id.
    pub node_id: u64,
    /// Version of its binary.
    pub version: String,
    /// Its Raft term; 0 from a version that did not say.
    #[serde(default)]
    pub term: u64,
    /// Index of the last entry it applied.
    pub applied: u64,
    /// Blobs it should hold and is not known to hold; of meaning once it has compared its disk with the
    /// catalogue, see [`PeerStatus::missing_blobs`].
    pub missing_blobs: u64,
    /// Bytes in use on the disk of its data directory.
    pub disk_used: u64,
    /// Size of that disk in bytes.
    pub disk_total: u64,
    /// The feature level of its binary; 1 from a version that did not say.
    #[serde(default = "first_level")]
    pub feature_level: u32,
    /// Why the cluster refuses it, if it does.
    #[serde(default)]
    pub refused: Option<String>,
    /// Blobs that it knows to have fewer copies than there should be.
    #[serde(default)]
    pub under_replicated: u64,
    /// How long the blob that is missing here for the longest time has been so.
    #[serde(default)]
    pub oldest_missing_seconds: u64,
    /// Index of the last entry that it had applied when it began its last complete comparison of the
    /// catalogue with its disk; 0 before the first.
    #[serde(default)]
    pub compared_applied: u64,
    /// Blobs that no replica has any more, as far as it knows.
    #[serde(default)]
    pub unrecoverable_blobs: u64,
    /// Inodes in use on the disk of its data directory.
    #[serde(default)]
    pub inodes_used: u64,
    /// How full that disk is, in a word: see [`DiskLevel`](crate::ops::disk::DiskLevel).
    #[serde(default)]
    pub disk_level: String,
    /// Inodes of that disk; 0 where the file system has no fixed number of them.
    #[serde(default)]
    pub inodes_total: u64,
    /// How far the reading-again of its blobs is.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// What its garbage collection did.
    #[serde(default)]
    pub gc: GcStatus,
}

impl PeerStatus {
    /// Blobs it should hold and does not, if it knows: it does once it has compared its disk with the
    /// catalogue. Versions of feature level 1 do not say whether they have.
    #[must_use]
    pub fn missing_blobs(&self) -> Option<u64> {
        (self.compared_applied > 0 || self.feature_level < 2).then_some(self.missing_blobs)
    }
}

fn first_level() -> u32 {
    1
}
