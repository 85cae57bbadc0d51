//! The words of the peer protocol: paths, headers and JSON bodies.

use serde::{Deserialize, Serialize};
use tercet_storage::{Algorithm, RepositoryName};

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
}

/// Query of `PATCH /peer/sessions/{id}`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct SessionAppend {
    /// Where the body begins.
    pub offset: u64,
}

/// Query of `POST /peer/sessions/{id}/finish`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SessionFinish {
    /// What all the bytes must hash to.
    pub digest: String,
    /// How many bytes there must be.
    pub size: u64,
}

/// Query of `POST /peer/blobs/{digest}`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct BlobPush {
    /// Size of the blob in bytes.
    pub size: u64,
}

/// What a replica says about itself on `GET /peer/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Blobs it should hold and does not.
    pub missing_blobs: u64,
    /// Bytes in use on the disk of its data directory.
    pub disk_used: u64,
    /// Size of that disk in bytes.
    pub disk_total: u64,
}
