//! The only place that builds and takes apart keys.
//!
//! Parts are joined by NUL, which no repository name, tag or digest can hold, so no key of one repository
//! is in the range of another (`a` and `a/b`, or `a` and `ab`).

use std::str::FromStr;

use super::table::Table;
use crate::error::StorageError;
use crate::{Digest, RepositoryName, Tag};

pub(super) fn repository(repository: &RepositoryName) -> Vec<u8> {
    repository.as_str().as_bytes().to_vec()
}

pub(super) fn digest(digest: &Digest) -> Vec<u8> {
    digest.to_string().into_bytes()
}

/// All keys of one repository in a table whose keys start with one.
pub(super) fn in_repository(repository: &RepositoryName) -> Vec<u8> {
    join(&[repository.as_str(), ""])
}

pub(super) fn tag(repository: &RepositoryName, tag: &Tag) -> Vec<u8> {
    join(&[repository.as_str(), tag.as_str()])
}

/// A tag key for text that may be no tag: where a listing continues.
pub(super) fn tag_after(repository: &RepositoryName, after: &str) -> Vec<u8> {
    join(&[repository.as_str(), after])
}

pub(super) fn link(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    join(&[repository.as_str(), &digest.to_string()])
}

/// A repository that sees a blob.
pub(super) fn blob_repository(digest: &Digest, repository: &RepositoryName) -> Vec<u8> {
    join(&[&digest.to_string(), repository.as_str()])
}

/// All repositories that see a blob.
pub(super) fn of_blob(digest: &Digest) -> Vec<u8> {
    join(&[&digest.to_string(), ""])
}

/// The repository and the digest of a key that [`link`] built.
pub(super) fn link_parts(
    table: Table,
    key: &[u8],
) -> Result<(RepositoryName, Digest), StorageError> {
    let parts = std::str::from_utf8(key).ok().and_then(|text| text.split_once('\0'));
    let parsed = parts.and_then(|(name, digest)| Some((name.parse().ok()?, digest.parse().ok()?)));
    parsed.ok_or_else(|| malformed(table, key))
}

/// A manifest that names another one.
pub(super) fn manifest_parent(
    repository: &RepositoryName,
    child: &Digest,
    parent: &Digest,
) -> Vec<u8> {
    join(&[repository.as_str(), &child.to_string(), &parent.to_string()])
}

/// All tags of one manifest, all referrers of one subject, or all that name one manifest.
pub(super) fn of_digest(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    join(&[repository.as_str(), &digest.to_string(), ""])
}

pub(super) fn tag_target(repository: &RepositoryName, digest: &Digest, tag: &Tag) -> Vec<u8> {
    join(&[repository.as_str(), &digest.to_string(), tag.as_str()])
}

pub(super) fn referrer(repository: &RepositoryName, subject: &Digest, digest: &Digest) -> Vec<u8> {
    join(&[repository.as_str(), &subject.to_string(), &digest.to_string()])
}

/// Names, leaving names, retired and removed ids share a table, told apart by the first part.
pub(super) const MEMBER_PREFIX: &[u8] = b"name\0";

pub(super) fn member(name: &str) -> Vec<u8> {
    join(&["name", name])
}

/// A member that is about to go.
pub(super) fn leaving(name: &str) -> Vec<u8> {
    join(&["leaving", name])
}

pub(super) fn retired(node_id: u64) -> Vec<u8> {
    join(&["retired", &format!("{node_id:016x}")])
}

/// Ids that went without a successor.
pub(super) const REMOVED_PREFIX: &[u8] = b"removed\0";

pub(super) fn removed(node_id: u64) -> Vec<u8> {
    join(&["removed", &format!("{node_id:016x}")])
}

/// Each setting is one key.
pub(super) const TOKEN_KEYS: &[u8] = b"token_keys";
pub(super) const IMMUTABLE_TAGS: &[u8] = b"immutable_tags";
pub(super) const RETENTION: &[u8] = b"retention";
pub(super) const FEATURE_LEVEL: &[u8] = b"feature_level";
pub(super) const COLLECTION_HOLDS: &[u8] = b"collection_holds";

/// What NULs separate in `key`, if it is text.
pub(super) fn parts(key: &[u8]) -> Option<Vec<&str>> {
    Some(std::str::from_utf8(key).ok()?.split('\0').collect())
}

/// The part of `key` after `prefix`, parsed.
pub(super) fn rest<T: FromStr>(table: Table, key: &[u8], prefix: &[u8]) -> Result<T, StorageError> {
    rest_text(key, prefix).and_then(|text| text.parse().ok()).ok_or_else(|| malformed(table, key))
}

/// The text of `key` after `prefix`.
pub(super) fn rest_string(table: Table, key: &[u8], prefix: &[u8]) -> Result<String, StorageError> {
    rest_text(key, prefix).map(ToOwned::to_owned).ok_or_else(|| malformed(table, key))
}

fn rest_text<'a>(key: &'a [u8], prefix: &[u8]) -> Option<&'a str> {
    key.strip_prefix(prefix).and_then(|rest| std::str::from_utf8(rest).ok())
}

fn malformed(table: Table, key: &[u8]) -> StorageError {
    StorageError::Key { table: table.name(), key: String::from_utf8_lossy(key).into_owned() }
}

fn join(parts: &[&str]) -> Vec<u8> {
    parts.join("\0").into_bytes()
}
