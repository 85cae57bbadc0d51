//! What can be decided by the group.
//!
//! Commands are on disk in every log, so variants are only ever appended and fields never change;
//! a changed meaning is a new variant. A replica that does not know a variant cannot apply it, so each
//! has a feature level, and is proposed only once every member of the cluster understands that.

use std::fmt;

use serde::{Deserialize, Serialize};
use tercet_storage::{
    Digest, ImmutableTagRule, ManifestSummary, RepositoryName, RetentionRule, Secret, Tag,
};

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
    /// Forget blobs that nothing references, and every repository's sight of them. Judged again while it
    /// is applied: what was referenced or renewed meanwhile stays.
    CollectBlobs {
        /// The blobs.
        digests: Vec<Digest>,
        /// How long a blob must have been without a reference, in milliseconds.
        grace_ms: u64,
    },
    /// Somebody has asked for blobs that nothing references, and may be about to name them: their grace
    /// begins anew.
    RenewBlobs {
        /// The blobs.
        digests: Vec<Digest>,
    },
    /// Collect nothing for a while.
    HoldCollection {
        /// For whom; each holder has one hold.
        holder: String,
        /// Until when, in milliseconds since the Unix epoch, at most an hour from now; 0 lets go.
        until_ms: u64,
    },
    /// Replace the rules about what may go.
    SetRetention {
        /// All rules, in the order in which they are tried; none keeps everything.
        rules: Vec<RetentionRule>,
    },
    /// Remove what the rules let go of in one repository. Judged again while it is applied: what was
    /// moved, pushed or named meanwhile stays.
    ApplyRetention {
        /// The repository.
        repository: RepositoryName,
        /// Tags to remove.
        tags: Vec<ExpiredTag>,
        /// Manifests to remove.
        manifests: Vec<ExpiredManifest>,
    },
    /// Note when manifests were pulled.
    RecordPulls {
        /// Which, and when.
        pulls: Vec<PullSeen>,
    },
    /// From now on commands of this feature level may be proposed. It only rises.
    SetFeatureLevel {
        /// The level.
        level: u32,
        /// The lowest version of Tercet that knows it.
        version: String,
    },
    /// Mark a member as about to go, or take the mark off: blobs are placed elsewhere while it lasts.
    SetLeaving {
        /// The member's name.
        name: String,
        /// Its id, so that a successor of the same name is not meant.
        node_id: NodeId,
        /// Whether it leaves.
        leaving: Leaving,
    },
    /// Retire a member's id without a successor.
    RemoveMember {
        /// The member's name.
        name: String,
        /// Its id.
        node_id: NodeId,
    },
    /// Forget repositories in which nothing is left: no manifest, and no blob that a manifest of theirs
    /// names. Judged again while it is applied.
    ForgetRepositories {
        /// The repositories.
        repositories: Vec<RepositoryName>,
        /// How long nothing must have been pushed, mounted or let go of in them, in milliseconds.
        grace_ms: u64,
    },
}

/// A tag as the rules judged it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredTag {
    /// The tag.
    pub tag: Tag,
    /// Where it pointed.
    pub digest: Digest,
    /// When it had been moved there, in milliseconds since the Unix epoch.
    pub updated_ms: u64,
}

/// A manifest without a tag as the rules judged it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredManifest {
    /// The manifest.
    pub digest: Digest,
    /// When it had been pushed, in milliseconds since the Unix epoch.
    pub pushed_ms: u64,
}

/// A pull of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSeen {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// When, in milliseconds since the Unix epoch, on the clock of the replica that served it.
    pub at_ms: u64,
}

/// Whether a member is about to go.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Leaving {
    /// It stays.
    #[default]
    No,
    /// It is: nothing new is placed on it, and what it holds is copied elsewhere.
    Yes,
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

/// What a command does to the size of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// It adds records at a rate that clients decide.
    Grows,
    /// It removes records, or is so rare and small that a nearly full disk bears it.
    Bounded,
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
            Self::CollectBlobs { .. } => "collect_blobs",
            Self::RenewBlobs { .. } => "renew_blobs",
            Self::HoldCollection { .. } => "hold_collection",
            Self::SetRetention { .. } => "set_retention",
            Self::ApplyRetention { .. } => "apply_retention",
            Self::RecordPulls { .. } => "record_pulls",
            Self::SetFeatureLevel { .. } => "set_feature_level",
            Self::SetLeaving { .. } => "set_leaving",
            Self::RemoveMember { .. } => "remove_member",
            Self::ForgetRepositories { .. } => "forget_repositories",
        }
    }

    /// Whether a nearly full disk refuses it. Matched without a wildcard: a new variant has to say.
    pub fn growth(&self) -> Growth {
        match self {
            Self::BlobCommitted { .. }
            | Self::LinkBlob { .. }
            | Self::PutManifest { .. }
            | Self::PushManifest { .. }
            | Self::RecordPulls { .. } => Growth::Grows,
            Self::UnlinkBlob { .. }
            | Self::DeleteManifest { .. }
            | Self::DeleteTag { .. }
            // Records of the same size; and collection, which makes room, comes after it.
            | Self::RenewBlobs { .. }
            | Self::CollectBlobs { .. }
            | Self::ForgetRepositories { .. }
            | Self::ApplyRetention { .. }
            | Self::AdmitMember { .. }
            | Self::RemoveMember { .. }
            | Self::SetLeaving { .. }
            | Self::SetImmutableTags { .. }
            | Self::RotateTokenKey { .. }
            | Self::HoldCollection { .. }
            | Self::SetRetention { .. }
            | Self::SetFeatureLevel { .. } => Growth::Bounded,
        }
    }

    /// The feature level that a cluster must have before this is proposed. Matched without a wildcard: a
    /// new variant has to say.
    pub fn feature_level(&self) -> u32 {
        match self {
            Self::BlobCommitted { .. }
            | Self::LinkBlob { .. }
            | Self::UnlinkBlob { .. }
            | Self::PutManifest { .. }
            | Self::DeleteManifest { .. }
            | Self::DeleteTag { .. }
            | Self::AdmitMember { .. }
            | Self::PushManifest { .. }
            | Self::SetImmutableTags { .. }
            | Self::RotateTokenKey { .. } => 1,
            // Proposed when every member understands its level, which it then sets.
            Self::SetFeatureLevel { .. } => 1,
            Self::CollectBlobs { .. }
            | Self::RenewBlobs { .. }
            | Self::HoldCollection { .. }
            | Self::SetRetention { .. }
            | Self::ApplyRetention { .. }
            | Self::RecordPulls { .. }
            | Self::SetLeaving { .. }
            | Self::RemoveMember { .. }
            | Self::ForgetRepositories { .. } => 2,
        }
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.command.name())
    }
}
