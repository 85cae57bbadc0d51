//! What can be decided by the group.
//!
//! Commands are on disk in every log, so variants are only ever appended and fields never change;
//! a changed meaning is a new variant. Nothing gates a variant yet: a replica that does not know one
//! cannot apply it, so replicas of versions with different variants must not run in one cluster.

use std::fmt;

use serde::{Deserialize, Serialize};
use tercet_storage::{Digest, ImmutableTagRule, ManifestSummary, RepositoryName, Secret, Tag};

use crate::type_config::NodeId;

/// A command with the time at which the leader accepted it. Apply reads no clock: this is the only
/// time it knows, and it is the same on every replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Milliseconds since the Unix epoch, on the leader's clock.
    pub at_ms: u64,
    /// What to do.
    pub command: Command,
}

/// One change of the metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A blob is durable on a write quorum; make it visible in a repository.
    BlobCommitted {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The repository it was pushed to.
        repository: RepositoryName,
    },
    /// Mount (distribution spec, "Mounting a blob from another repository").
    LinkBlob {
        /// The repository to mount into.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// The repository in which the blob must be visible already.
        from: RepositoryName,
    },
    /// Delete a blob from a repository; refused while a manifest there names it.
    UnlinkBlob {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// Store a manifest in a repository and point tags at it.
    PutManifest {
        /// The repository.
        repository: RepositoryName,
        /// Digest of `bytes`.
        digest: Digest,
        /// The media type it was pushed with.
        media_type: String,
        /// The manifest, exactly as pushed.
        #[serde(with = "tercet_storage::codec::byte_field")]
        bytes: Vec<u8>,
        /// What the proposer parsed from `bytes`. Carried so that two versions with different
        /// parsers cannot apply one command differently.
        summary: ManifestSummary,
        /// Tags to point at it; none for a push by digest.
        tags: Vec<Tag>,
        /// What must hold of those tags for the command to take effect.
        condition: Condition,
    },
    /// Delete a manifest from a repository, with every tag there that points at it.
    DeleteManifest {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
    },
    /// Delete one tag.
    DeleteTag {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// Register a replica under its name. The id that held the name before is retired for ever.
    AdmitMember {
        /// The configured name.
        name: String,
        /// The new id.
        node_id: NodeId,
    },
    /// As [`Self::PutManifest`], and says what may be absent.
    PushManifest {
        /// The repository.
        repository: RepositoryName,
        /// Digest of `bytes`.
        digest: Digest,
        /// The media type it was pushed with.
        media_type: String,
        /// The manifest, exactly as pushed.
        #[serde(with = "tercet_storage::codec::byte_field")]
        bytes: Vec<u8>,
        /// What the proposer parsed from `bytes`.
        summary: ManifestSummary,
        /// Tags to point at it; none for a push by digest.
        tags: Vec<Tag>,
        /// What must hold of those tags for the command to take effect.
        condition: Condition,
        /// What the repository may lack of what the manifest names.
        absent: AbsentReferences,
    },
    /// Replace the rules about tags that do not move.
    SetImmutableTags {
        /// All rules, in the order in which they are tried; none lifts them all.
        rules: Vec<ImmutableTagRule>,
    },
    /// Add a key that signs and verifies tokens, and forget those that no valid token needs.
    RotateTokenKey {
        /// Id of the newest key, as far as the proposer knows: of two that race, one wins.
        expected: Option<String>,
        /// Id of the new key.
        key_id: String,
        /// The new key.
        secret: Secret,
        /// How long a key verifies after a successor was made, in milliseconds.
        keep_ms: u64,
    },
}

/// A precondition on the tags of [`Command::PutManifest`], judged while the command is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Always.
    None,
    /// Every tag points at this digest now (`If-Match`).
    IfMatch(Digest),
    /// No tag exists yet (`If-None-Match: *`).
    IfNoneMatchAny,
}

/// What a manifest may name without its being in the repository. The proposer knows what is missing and
/// judges by its configuration; what it did not judge is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbsentReferences {
    /// Nothing.
    Refused,
    /// These, blobs or manifests. They may be there all the same.
    Allowed(Vec<Digest>),
}

impl Command {
    /// The variant's name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BlobCommitted { .. } => "blob_committed",
            Self::LinkBlob { .. } => "link_blob",
            Self::UnlinkBlob { .. } => "unlink_blob",
            Self::PutManifest { .. } => "put_manifest",
            Self::DeleteManifest { .. } => "delete_manifest",
            Self::DeleteTag { .. } => "delete_tag",
            Self::AdmitMember { .. } => "admit_member",
            Self::PushManifest { .. } => "push_manifest",
            Self::SetImmutableTags { .. } => "set_immutable_tags",
            Self::RotateTokenKey { .. } => "rotate_token_key",
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command.name())
    }
}
