//! Typed writes: one pair of put and delete for each table.

use serde::Serialize;

use super::batch::MetaBatch;
use super::keys;
use super::records::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, CollectionHoldsRecord, FeatureLevelRecord,
    ImmutableTagsRecord, ManifestLinkRecord, ManifestRecord, MemberRecord, PullRecord,
    ReferrerRecord, RepositoryRecord, RetentionRecord, TagRecord, TokenKeysRecord, schemas,
};
use super::table::Table;
use crate::codec::{self, Schema};
use crate::error::StorageError;
use crate::{Digest, RepositoryName, Tag};

impl MetaBatch<'_> {
    /// Writes a repository's record.
    pub fn put_repository(
        &mut self,
        repository: &RepositoryName,
        record: &RepositoryRecord,
    ) -> Result<(), StorageError> {
        self.put_record(
            Table::Repositories,
            keys::repository(repository),
            schemas::REPOSITORY,
            record,
        )
    }

    /// Removes a repository's record; what is in the repository is the caller's business.
    pub fn delete_repository(&mut self, repository: &RepositoryName) {
        self.delete(Table::Repositories, keys::repository(repository));
    }

    /// Points a tag at a manifest, and keeps the index of tags by manifest in step.
    pub fn put_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        record: &TagRecord,
    ) -> Result<(), StorageError> {
        self.delete_tag(repository, tag)?;
        self.put(Table::TagTargets, keys::tag_target(repository, &record.digest, tag), Vec::new());
        self.put_record(Table::Tags, keys::tag(repository, tag), schemas::TAG, record)
    }

    /// Removes a tag. Returns where it pointed.
    pub fn delete_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, StorageError> {
        let previous = self.meta().tag(repository, tag)?;
        if let Some(previous) = &previous {
            self.delete(Table::TagTargets, keys::tag_target(repository, &previous.digest, tag));
            self.delete(Table::Tags, keys::tag(repository, tag));
        }
        Ok(previous)
    }

    /// Writes a manifest.
    pub fn put_manifest(
        &mut self,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), StorageError> {
        self.put_record(Table::Manifests, keys::digest(digest), schemas::MANIFEST, record)
    }

    /// Removes a manifest.
    pub fn delete_manifest(&mut self, digest: &Digest) {
        self.delete(Table::Manifests, keys::digest(digest));
    }

    /// Writes a manifest's presence in a repository.
    pub fn put_manifest_link(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &ManifestLinkRecord,
    ) -> Result<(), StorageError> {
        self.put_record(
            Table::ManifestLinks,
            keys::link(repository, digest),
            schemas::MANIFEST_LINK,
            record,
        )
    }

    /// Notes that the manifest `parent` of a repository names the manifest `child`.
    pub fn put_manifest_parent(
        &mut self,
        repository: &RepositoryName,
        child: &Digest,
        parent: &Digest,
    ) {
        let key = keys::manifest_parent(repository, child, parent);
        self.put(Table::ManifestParents, key, Vec::new());
    }

    /// The manifest `parent`, which names `child`, is gone from a repository.
    pub fn delete_manifest_parent(
        &mut self,
        repository: &RepositoryName,
        child: &Digest,
        parent: &Digest,
    ) {
        self.delete(Table::ManifestParents, keys::manifest_parent(repository, child, parent));
    }

    /// Removes a manifest from a repository.
    pub fn delete_manifest_link(&mut self, repository: &RepositoryName, digest: &Digest) {
        self.delete(Table::ManifestLinks, keys::link(repository, digest));
    }

    /// Writes a blob's record.
    pub fn put_blob(&mut self, digest: &Digest, record: &BlobRecord) -> Result<(), StorageError> {
        self.put_record(Table::Blobs, keys::digest(digest), schemas::BLOB, record)
    }

    /// Removes a blob's record.
    pub fn delete_blob(&mut self, digest: &Digest) {
        self.delete(Table::Blobs, keys::digest(digest));
    }

    /// Notes that a repository sees a blob: for what [`Self::put_blob_link`] did not write.
    pub(super) fn put_blob_repository(&mut self, digest: &Digest, repository: &RepositoryName) {
        self.put(Table::BlobRepositories, keys::blob_repository(digest, repository), Vec::new());
    }

    /// Writes a blob's visibility in a repository.
    pub fn put_blob_link(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &BlobLinkRecord,
    ) -> Result<(), StorageError> {
        self.put_blob_repository(digest, repository);
        self.put_record(
            Table::BlobLinks,
            keys::link(repository, digest),
            schemas::BLOB_LINK,
            record,
        )
    }

    /// Removes a blob from a repository's sight.
    pub fn delete_blob_link(&mut self, repository: &RepositoryName, digest: &Digest) {
        self.delete(Table::BlobRepositories, keys::blob_repository(digest, repository));
        self.delete(Table::BlobLinks, keys::link(repository, digest));
    }

    /// Writes how many manifests of a repository name a blob that it does not have.
    pub fn put_awaited_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &AwaitedBlobRecord,
    ) -> Result<(), StorageError> {
        self.put_record(
            Table::AwaitedBlobs,
            keys::link(repository, digest),
            schemas::AWAITED_BLOB,
            record,
        )
    }

    /// No manifest of the repository awaits the blob any more.
    pub fn delete_awaited_blob(&mut self, repository: &RepositoryName, digest: &Digest) {
        self.delete(Table::AwaitedBlobs, keys::link(repository, digest));
    }

    /// Lists the manifest of `record` as a referrer of `subject`.
    pub fn put_referrer(
        &mut self,
        repository: &RepositoryName,
        subject: &Digest,
        record: &ReferrerRecord,
    ) -> Result<(), StorageError> {
        let key = keys::referrer(repository, subject, &record.descriptor.digest);
        self.put_record(Table::Referrers, key, schemas::REFERRER, record)
    }

    /// Stops listing the manifest `digest` as a referrer of `subject`.
    pub fn delete_referrer(
        &mut self,
        repository: &RepositoryName,
        subject: &Digest,
        digest: &Digest,
    ) {
        self.delete(Table::Referrers, keys::referrer(repository, subject, digest));
    }

    /// Writes the member of that name.
    pub fn put_member(&mut self, name: &str, record: &MemberRecord) -> Result<(), StorageError> {
        self.put_record(Table::Members, keys::member(name), schemas::MEMBER, record)
    }

    /// Removes the member of that name.
    pub fn delete_member(&mut self, name: &str) {
        self.delete(Table::Members, keys::member(name));
    }

    /// Notes that a Raft id may never come back. There is no way to take it back.
    pub fn put_retired(&mut self, node_id: u64) {
        self.put(Table::Members, keys::retired(node_id), Vec::new());
    }

    /// Forgets why ids are retired; they stay so. For a cluster that is founded anew.
    pub fn forget_removals(&mut self) -> Result<(), StorageError> {
        for key in self.meta().removed_keys()? {
            self.delete(Table::Members, key);
        }
        Ok(())
    }

    /// Retires an id whose member an operator has removed.
    pub fn put_removed(&mut self, node_id: u64) {
        self.put_retired(node_id);
        self.put(Table::Members, keys::removed(node_id), Vec::new());
    }

    /// Writes all keys that sign and verify tokens.
    pub fn put_token_keys(&mut self, record: &TokenKeysRecord) -> Result<(), StorageError> {
        self.put_record(Table::Settings, keys::TOKEN_KEYS.to_vec(), schemas::TOKEN_KEYS, record)
    }

    /// Writes all rules about tags that do not move.
    pub fn put_immutable_tags(&mut self, record: &ImmutableTagsRecord) -> Result<(), StorageError> {
        let key = keys::IMMUTABLE_TAGS.to_vec();
        self.put_record(Table::Settings, key, schemas::IMMUTABLE_TAGS, record)
    }

    /// Notes when a manifest was last pulled from a repository.
    pub fn put_pull(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &PullRecord,
    ) -> Result<(), StorageError> {
        self.put_record(Table::Pulls, keys::link(repository, digest), schemas::PULL, record)
    }

    /// Forgets when a manifest was last pulled.
    pub fn delete_pull(&mut self, repository: &RepositoryName, digest: &Digest) {
        self.delete(Table::Pulls, keys::link(repository, digest));
    }

    /// Writes all rules about what may go.
    pub fn put_retention(&mut self, record: &RetentionRecord) -> Result<(), StorageError> {
        self.put_record(Table::Settings, keys::RETENTION.to_vec(), schemas::RETENTION, record)
    }

    /// Writes what every member understands.
    pub fn put_feature_level(&mut self, record: &FeatureLevelRecord) -> Result<(), StorageError> {
        let key = keys::FEATURE_LEVEL.to_vec();
        self.put_record(Table::Settings, key, schemas::FEATURE_LEVEL, record)
    }

    /// Writes who keeps blobs from being collected.
    pub fn put_collection_holds(
        &mut self,
        record: &CollectionHoldsRecord,
    ) -> Result<(), StorageError> {
        let key = keys::COLLECTION_HOLDS.to_vec();
        self.put_record(Table::Settings, key, schemas::COLLECTION_HOLDS, record)
    }

    /// Notes that the member of that name is about to go.
    pub fn put_leaving(&mut self, name: &str) {
        self.put(Table::Members, keys::leaving(name), Vec::new());
    }

    /// The member of that name stays, or is gone.
    pub fn delete_leaving(&mut self, name: &str) {
        self.delete(Table::Members, keys::leaving(name));
    }

    fn put_record<T: Serialize>(
        &mut self,
        table: Table,
        key: Vec<u8>,
        schema: Schema,
        record: &T,
    ) -> Result<(), StorageError> {
        let value = codec::encode(schema, record)
            .map_err(|source| StorageError::Record { table: table.name(), source })?;
        self.put(table, key, value);
        Ok(())
    }
}
