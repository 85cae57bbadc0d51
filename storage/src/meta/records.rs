//! The values of the tables.
//!
//! Each is stored in an envelope (see [`crate::codec`]) under the schema of the same name below. To change
//! a record: keep the old struct in a module `v1` here, raise `version` in its schema, make the reader try
//! [`crate::codec::Envelope`]'s version and convert, add a sample to `tests/golden.rs` and run it once with
//! `TERCET_GOLDEN=write`, which adds the new golden file and never touches an old one.

use serde::{Deserialize, Serialize};

use super::settings::{CollectionHold, ImmutableTagRule, RetentionRule, TokenKey};
use crate::{Descriptor, Digest, ManifestSummary};

/// A repository. It exists from the first push into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// When the first push arrived, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// Where a tag points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// When it was last moved, in milliseconds since the Unix epoch.
    pub updated_ms: u64,
}

/// A manifest, once per cluster however many repositories hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// The exact bytes pushed.
    #[serde(with = "crate::codec::byte_field")]
    pub bytes: Vec<u8>,
    /// What was parsed from them.
    pub summary: ManifestSummary,
    /// How many repositories hold it.
    pub links: u64,
}

/// A manifest's presence in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestLinkRecord {
    /// The type it was pushed with, which is the `Content-Type` it is served with.
    pub media_type: String,
    /// When it was pushed, in milliseconds since the Unix epoch.
    pub pushed_ms: u64,
}

/// A blob that is durable on a write quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Its size in bytes.
    pub size: u64,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_ms: u64,
    /// How many manifest links, over all repositories, name it.
    pub references: u64,
    /// Since when nothing names it; `None` while something does.
    pub unreferenced_since_ms: Option<u64>,
}

/// A blob's visibility in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobLinkRecord {
    /// When it was linked, in milliseconds since the Unix epoch.
    pub linked_ms: u64,
    /// How many manifests of this repository name it.
    pub references: u32,
}

/// A blob that manifests of a repository name and that the repository does not have. Once it has,
/// [`BlobLinkRecord`] takes the count over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedBlobRecord {
    /// How many manifests of this repository name it.
    pub references: u32,
}

/// A manifest that names another as its subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferrerRecord {
    /// The descriptor listed by the referrers API.
    pub descriptor: Descriptor,
}

/// A replica admitted to the cluster, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its current Raft id.
    pub node_id: u64,
    /// When that id was admitted, in milliseconds since the Unix epoch.
    pub admitted_ms: u64,
}

/// The keys that sign and verify tokens, as a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeysRecord {
    /// In the order of their making: the newest is last.
    pub keys: Vec<TokenKey>,
}

/// The rules about tags that do not move, as a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImmutableTagsRecord {
    /// In the order in which they are tried.
    pub rules: Vec<ImmutableTagRule>,
}

/// When a manifest was last pulled from a repository, as far as it was worth writing down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRecord {
    /// In milliseconds since the Unix epoch.
    pub last_ms: u64,
}

/// The rules about what may go, as a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRecord {
    /// In the order in which they are tried: the first that means a repository decides.
    pub rules: Vec<RetentionRule>,
    /// Since when pulls are noted for the repositories that the rules mean, in milliseconds since the Unix
    /// epoch. What was never seen to be pulled may have been pulled until then.
    pub pulls_since_ms: u64,
}

/// What every member of the cluster understands, as a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLevelRecord {
    /// The level; a cluster without the setting has 1.
    pub level: u32,
    /// The lowest version of Tercet that knows the level, for the message of one that does not.
    pub version: String,
}

/// Who keeps blobs from being collected, as a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionHoldsRecord {
    /// In the order of their holders' names.
    pub holds: Vec<CollectionHold>,
}

/// The schema of every record. Ids are never reused. A new version may be written only from a feature level on:
/// replicas that apply one entry with different programs must make the same bytes of it, see `state_hash`.
pub mod schemas {
    use crate::codec::Schema;

    /// [`super::RepositoryRecord`].
    pub const REPOSITORY: Schema = Schema { id: 1, version: 1, name: "repository" };
    /// [`super::TagRecord`].
    pub const TAG: Schema = Schema { id: 2, version: 1, name: "tag" };
    /// [`super::ManifestRecord`].
    pub const MANIFEST: Schema = Schema { id: 3, version: 1, name: "manifest" };
    /// [`super::ManifestLinkRecord`].
    pub const MANIFEST_LINK: Schema = Schema { id: 4, version: 1, name: "manifest_link" };
    /// [`super::BlobRecord`].
    pub const BLOB: Schema = Schema { id: 5, version: 1, name: "blob" };
    /// [`super::BlobLinkRecord`].
    pub const BLOB_LINK: Schema = Schema { id: 6, version: 1, name: "blob_link" };
    /// [`super::ReferrerRecord`].
    pub const REFERRER: Schema = Schema { id: 7, version: 1, name: "referrer" };
    /// [`super::MemberRecord`].
    pub const MEMBER: Schema = Schema { id: 8, version: 1, name: "member" };
    /// [`super::TokenKeysRecord`].
    pub const TOKEN_KEYS: Schema = Schema { id: 9, version: 1, name: "token_keys" };
    /// [`super::ImmutableTagsRecord`].
    pub const IMMUTABLE_TAGS: Schema = Schema { id: 10, version: 1, name: "immutable_tags" };
    /// [`super::AwaitedBlobRecord`].
    pub const AWAITED_BLOB: Schema = Schema { id: 11, version: 1, name: "awaited_blob" };
    /// [`super::PullRecord`].
    pub const PULL: Schema = Schema { id: 12, version: 1, name: "pull" };
    /// [`super::RetentionRecord`].
    pub const RETENTION: Schema = Schema { id: 13, version: 1, name: "retention" };
    /// [`super::FeatureLevelRecord`].
    pub const FEATURE_LEVEL: Schema = Schema { id: 14, version: 1, name: "feature_level" };
    /// [`super::CollectionHoldsRecord`].
    pub const COLLECTION_HOLDS: Schema = Schema { id: 15, version: 1, name: "collection_holds" };
}
