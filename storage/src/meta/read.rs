//! Typed reads of the tables.

use serde::de::DeserializeOwned;

use super::keys;
use super::records::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, CollectionHoldsRecord, FeatureLevelRecord,
    ImmutableTagsRecord, ManifestLinkRecord, ManifestRecord, MemberRecord, PullRecord,
    ReferrerRecord, RepositoryRecord, RetentionRecord, TagRecord, TokenKeysRecord, schemas,
};
use super::settings::{CollectionHold, ImmutableTagRule, RetentionRule, TokenKey};
use super::table::{KeyValue, KvRead, Table};
use crate::codec::{self, Schema};
use crate::error::StorageError;
use crate::{Digest, RepositoryName, Tag};

/// Typed reads over the database or over a batch.
///
/// Listings return at most `limit` items in ascending byte order, after the item `after`.
#[derive(Debug)]
pub struct Meta<'a, R: KvRead + ?Sized>(pub &'a R);

impl<R: KvRead + ?Sized> Clone for Meta<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: KvRead + ?Sized> Copy for Meta<'_, R> {}

impl<'a, R: KvRead + ?Sized> Meta<'a, R> {
    /// Typed reads over `reader`.
    #[must_use]
    pub fn new(reader: &'a R) -> Self {
        Self(reader)
    }

    /// The repository's record, if anything was ever pushed into it.
    pub fn repository(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<RepositoryRecord>, StorageError> {
        self.record(Table::Repositories, &keys::repository(repository), schemas::REPOSITORY)
    }

    /// Repositories by name.
    pub fn repositories(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StorageError> {
        let pairs = self.0.scan(Table::Repositories, b"", after.map(str::as_bytes), limit)?;
        pairs.iter().map(|(key, _)| keys::rest(Table::Repositories, key, b"")).collect()
    }

    /// Where a tag points.
    pub fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, StorageError> {
        self.record(Table::Tags, &keys::tag(repository, tag), schemas::TAG)
    }

    /// Tags of a repository in lexical order. `after` need not be a tag.
    pub fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Tag>, StorageError> {
        let prefix = keys::in_repository(repository);
        let after = after.map(|after| keys::tag_after(repository, after));
        let pairs = self.0.scan(Table::Tags, &prefix, after.as_deref(), limit)?;
        pairs.iter().map(|(key, _)| keys::rest(Table::Tags, key, &prefix)).collect()
    }

    /// Every tag of a repository that points at `digest`.
    pub fn tags_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Tag>, StorageError> {
        let prefix = keys::of_digest(repository, digest);
        let pairs = self.0.scan(Table::TagTargets, &prefix, None, usize::MAX)?;
        pairs.iter().map(|(key, _)| keys::rest(Table::TagTargets, key, &prefix)).collect()
    }

    /// Whether a tag of the repository points at `digest`.
    pub fn is_tagged(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let prefix = keys::of_digest(repository, digest);
        Ok(!self.0.scan(Table::TagTargets, &prefix, None, 1)?.is_empty())
    }

    /// The manifests of a repository that name the manifest `child`, by digest.
    pub fn manifest_parents(
        &self,
        repository: &RepositoryName,
        child: &Digest,
        limit: usize,
    ) -> Result<Vec<Digest>, StorageError> {
        let prefix = keys::of_digest(repository, child);
        let pairs = self.0.scan(Table::ManifestParents, &prefix, None, limit)?;
        pairs.iter().map(|(key, _)| keys::rest(Table::ManifestParents, key, &prefix)).collect()
    }

    /// A manifest, whichever repositories hold it.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<ManifestRecord>, StorageError> {
        self.record(Table::Manifests, &keys::digest(digest), schemas::MANIFEST)
    }

    /// A manifest's presence in a repository.
    pub fn manifest_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestLinkRecord>, StorageError> {
        self.record(Table::ManifestLinks, &keys::link(repository, digest), schemas::MANIFEST_LINK)
    }

    /// The manifests of a repository.
    pub fn manifest_links(
        &self,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<(Digest, ManifestLinkRecord)>, StorageError> {
        self.links(Table::ManifestLinks, repository, after, limit, schemas::MANIFEST_LINK)
    }

    /// A blob, whichever repositories see it.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>, StorageError> {
        self.record(Table::Blobs, &keys::digest(digest), schemas::BLOB)
    }

    /// All blobs.
    pub fn blobs(
        &self,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<(Digest, BlobRecord)>, StorageError> {
        let after = after.map(keys::digest);
        let pairs = self.0.scan(Table::Blobs, b"", after.as_deref(), limit)?;
        let typed = |(key, value): &KeyValue| {
            Ok((keys::rest(Table::Blobs, key, b"")?, decode(Table::Blobs, schemas::BLOB, value)?))
        };
        pairs.iter().map(typed).collect()
    }

    /// A blob's visibility in a repository.
    pub fn blob_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<BlobLinkRecord>, StorageError> {
        self.record(Table::BlobLinks, &keys::link(repository, digest), schemas::BLOB_LINK)
    }

    /// Manifests of a repository that name a blob which the repository does not have.
    pub fn awaited_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<AwaitedBlobRecord>, StorageError> {
        self.record(Table::AwaitedBlobs, &keys::link(repository, digest), schemas::AWAITED_BLOB)
    }

    /// The blobs a repository sees.
    pub fn blob_links(
        &self,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<(Digest, BlobLinkRecord)>, StorageError> {
        self.links(Table::BlobLinks, repository, after, limit, schemas::BLOB_LINK)
    }

    /// The manifests of a repository whose subject is `subject`, by digest.
    pub fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<ReferrerRecord>, StorageError> {
        let prefix = keys::of_digest(repository, subject);
        let after = after.map(|after| keys::referrer(repository, subject, after));
        let pairs = self.0.scan(Table::Referrers, &prefix, after.as_deref(), limit)?;
        pairs.iter().map(|(_, value)| decode(Table::Referrers, schemas::REFERRER, value)).collect()
    }

    /// The member of that name.
    pub fn member(&self, name: &str) -> Result<Option<MemberRecord>, StorageError> {
        self.record(Table::Members, &keys::member(name), schemas::MEMBER)
    }

    /// All members by name.
    pub fn members(&self) -> Result<Vec<(String, MemberRecord)>, StorageError> {
        let prefix = keys::MEMBER_PREFIX;
        let pairs = self.0.scan(Table::Members, prefix, None, usize::MAX)?;
        let typed = |(key, value): &KeyValue| {
            Ok((
                keys::rest_string(Table::Members, key, prefix)?,
                decode(Table::Members, schemas::MEMBER, value)?,
            ))
        };
        pairs.iter().map(typed).collect()
    }

    /// Whether a Raft id once belonged to the cluster and may never come back.
    pub fn retired(&self, node_id: u64) -> Result<bool, StorageError> {
        Ok(self.0.get(Table::Members, &keys::retired(node_id))?.is_some())
    }

    /// Whether a retired id went because an operator removed its member, and not for a successor.
    pub fn removed(&self, node_id: u64) -> Result<bool, StorageError> {
        Ok(self.0.get(Table::Members, &keys::removed(node_id))?.is_some())
    }

    /// The keys that say whom an operator has removed.
    pub(super) fn removed_keys(&self) -> Result<Vec<Vec<u8>>, StorageError> {
        let pairs = self.0.scan(Table::Members, keys::REMOVED_PREFIX, None, usize::MAX)?;
        Ok(pairs.into_iter().map(|(key, _)| key).collect())
    }

    /// Whether an operator has ever removed a member.
    pub fn any_removed(&self) -> Result<bool, StorageError> {
        Ok(!self.0.scan(Table::Members, keys::REMOVED_PREFIX, None, 1)?.is_empty())
    }

    /// The keys that sign and verify tokens, the newest last; none before a leader has made one.
    pub fn token_keys(&self) -> Result<Vec<TokenKey>, StorageError> {
        let record: Option<TokenKeysRecord> =
            self.record(Table::Settings, keys::TOKEN_KEYS, schemas::TOKEN_KEYS)?;
        Ok(record.map(|record| record.keys).unwrap_or_default())
    }

    /// The rules about tags that do not move, in the order in which they are tried.
    pub fn immutable_tags(&self) -> Result<Vec<ImmutableTagRule>, StorageError> {
        let record: Option<ImmutableTagsRecord> =
            self.record(Table::Settings, keys::IMMUTABLE_TAGS, schemas::IMMUTABLE_TAGS)?;
        Ok(record.map(|record| record.rules).unwrap_or_default())
    }

    /// The repositories that see a blob, by name.
    pub fn blob_repositories(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StorageError> {
        let prefix = keys::of_blob(digest);
        let pairs = self.0.scan(Table::BlobRepositories, &prefix, None, limit)?;
        pairs.iter().map(|(key, _)| keys::rest(Table::BlobRepositories, key, &prefix)).collect()
    }

    /// When a manifest was last pulled from a repository, if that is known.
    pub fn pull(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<PullRecord>, StorageError> {
        self.record(Table::Pulls, &keys::link(repository, digest), schemas::PULL)
    }

    /// The rules about what may go, in the order in which they are tried.
    pub fn retention(&self) -> Result<Vec<RetentionRule>, StorageError> {
        Ok(self.retention_record()?.map(|record| record.rules).unwrap_or_default())
    }

    /// The rules about what may go, and since when pulls are noted for them; `None` before a leader has
    /// set any.
    pub fn retention_record(&self) -> Result<Option<RetentionRecord>, StorageError> {
        self.record(Table::Settings, keys::RETENTION, schemas::RETENTION)
    }

    /// What every member understands; `None` before a leader has raised it above 1.
    pub fn feature_level(&self) -> Result<Option<FeatureLevelRecord>, StorageError> {
        self.record(Table::Settings, keys::FEATURE_LEVEL, schemas::FEATURE_LEVEL)
    }

    /// Who keeps blobs from being collected, also those whose time is over.
    pub fn collection_holds(&self) -> Result<Vec<CollectionHold>, StorageError> {
        let record: Option<CollectionHoldsRecord> =
            self.record(Table::Settings, keys::COLLECTION_HOLDS, schemas::COLLECTION_HOLDS)?;
        Ok(record.map(|record| record.holds).unwrap_or_default())
    }

    /// Whether the member of that name is about to go.
    pub fn leaving(&self, name: &str) -> Result<bool, StorageError> {
        Ok(self.0.get(Table::Members, &keys::leaving(name))?.is_some())
    }

    fn record<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
        schema: Schema,
    ) -> Result<Option<T>, StorageError> {
        self.0.get(table, key)?.map(|bytes| decode(table, schema, &bytes)).transpose()
    }

    fn links<T: DeserializeOwned>(
        &self,
        table: Table,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
        schema: Schema,
    ) -> Result<Vec<(Digest, T)>, StorageError> {
        let prefix = keys::in_repository(repository);
        let after = after.map(|after| keys::link(repository, after));
        let pairs = self.0.scan(table, &prefix, after.as_deref(), limit)?;
        let typed = |(key, value): &KeyValue| {
            Ok((keys::rest(table, key, &prefix)?, decode(table, schema, value)?))
        };
        pairs.iter().map(typed).collect()
    }
}

fn decode<T: DeserializeOwned>(
    table: Table,
    schema: Schema,
    bytes: &[u8],
) -> Result<T, StorageError> {
    codec::decode(schema, bytes)
        .map_err(|source| StorageError::Record { table: table.name(), source })
}
