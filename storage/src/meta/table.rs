//! The tables and the one interface through which they are read.

use crate::error::StorageError;

/// A table: a column family of the state database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Repository -> [`crate::RepositoryRecord`].
    Repositories,
    /// Repository NUL tag -> [`crate::TagRecord`].
    Tags,
    /// Repository NUL digest NUL tag -> nothing: the tags of a manifest.
    TagTargets,
    /// Digest -> [`crate::ManifestRecord`].
    Manifests,
    /// Repository NUL digest -> [`crate::ManifestLinkRecord`].
    ManifestLinks,
    /// Digest -> [`crate::BlobRecord`].
    Blobs,
    /// Repository NUL digest -> [`crate::BlobLinkRecord`].
    BlobLinks,
    /// Repository NUL digest -> [`crate::AwaitedBlobRecord`].
    AwaitedBlobs,
    /// Digest NUL repository -> nothing: the repositories that see a blob. Made from `BlobLinks`; a
    /// database that a version without it wrote gets it when it is opened.
    BlobRepositories,
    /// Repository NUL child NUL manifest -> nothing: the manifests of a repository that name another one.
    /// Made from `ManifestLinks` and `Manifests`, as `BlobRepositories` is.
    ManifestParents,
    /// Repository NUL digest -> [`crate::PullRecord`]: when a manifest was last pulled.
    Pulls,
    /// Repository NUL subject NUL digest -> [`crate::ReferrerRecord`].
    Referrers,
    /// Member names -> [`crate::MemberRecord`], and the ids of members that are gone.
    Members,
    /// Setting name -> its record, such as [`crate::TokenKeysRecord`]; equal on every replica.
    Settings,
    /// Owned by the Raft layer: last applied, membership.
    System,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 15] = [
        Self::Repositories,
        Self::Tags,
        Self::TagTargets,
        Self::Manifests,
        Self::ManifestLinks,
        Self::Blobs,
        Self::BlobLinks,
        Self::AwaitedBlobs,
        Self::BlobRepositories,
        Self::ManifestParents,
        Self::Pulls,
        Self::Referrers,
        Self::Members,
        Self::Settings,
        Self::System,
    ];

    /// The column family's name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repositories => "repositories",
            Self::Tags => "tags",
            Self::TagTargets => "tag_targets",
            Self::Manifests => "manifests",
            Self::ManifestLinks => "manifest_links",
            Self::Blobs => "blobs",
            Self::BlobLinks => "blob_links",
            Self::AwaitedBlobs => "awaited_blobs",
            Self::BlobRepositories => "blob_repositories",
            Self::ManifestParents => "manifest_parents",
            Self::Pulls => "pulls",
            Self::Referrers => "referrers",
            Self::Members => "members",
            Self::Settings => "settings",
            Self::System => "system",
        }
    }
}

/// A raw key and its raw value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Reads of raw keys and values: from the database, or through a batch that sees its own writes.
pub trait KvRead {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// At most `limit` pairs whose key starts with `prefix` and is greater than the whole key `after`, in
    /// ascending order of keys.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StorageError>;
}
