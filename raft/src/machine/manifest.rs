//! Manifests, the tags that point at them, and the blobs they keep alive.

use std::collections::BTreeSet;

use tercet_storage::{
    Descriptor, Digest, ManifestLinkRecord, ManifestRecord, ManifestSummary, Meta, MetaBatch,
    ReferenceKind, ReferrerRecord, RepositoryName, StorageError, Tag, TagRecord,
};

use super::blob::{ensure_repository, release, retain};
use super::immutable;
use crate::command::{AbsentReferences, Condition};
use crate::outcome::Outcome;

/// The fields of [`Command::PushManifest`](crate::Command::PushManifest).
pub(super) struct Put {
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
    pub(super) summary: ManifestSummary,
    pub(super) tags: Vec<Tag>,
    pub(super) condition: Condition,
    pub(super) absent: AbsentReferences,
}

/// Judged in this order, and nothing is changed by what fails: the condition, because a client that
/// set one asked about exactly this; the immutable tags, because no upload will help there; what is
/// missing, because that the client can still push.
pub(super) fn put(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    put: Put,
) -> Result<Outcome, StorageError> {
    if let Some(refusal) = check_condition(batch, &put)? {
        return Ok(refusal);
    }
    if let Some(refusal) = check_moves(batch, &put)? {
        return Ok(refusal);
    }
    let missing = missing_references(batch, &put)?;
    if !missing.is_empty() {
        return Ok(Outcome::MissingReferences(missing));
    }
    ensure_repository(batch, at_ms, &put.repository)?;
    for tag in &put.tags {
        let record = TagRecord { digest: put.digest.clone(), updated_ms: at_ms };
        batch.put_tag(&put.repository, tag, &record)?;
    }
    let linked = Meta(&*batch).manifest_link(&put.repository, &put.digest)?;
    let pushed_ms = match &linked {
        // Replicas of level 1 keep the first time, so all do until none of them is left.
        Some(link) if Meta(&*batch).feature_level()?.is_none_or(|set| set.level < 2) => {
            link.pushed_ms
        }
        // Pushed once more: whoever did that relies on it now, and what is judged by its age is young again.
        _ => at_ms,
    };
    let link = ManifestLinkRecord { media_type: put.media_type.clone(), pushed_ms };
    batch.put_manifest_link(&put.repository, &put.digest, &link)?;
    if linked.is_none() {
        store(batch, put)?;
    }
    Ok(Outcome::Done)
}

pub(super) fn delete(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).repository(repository)?.is_none() {
        return Ok(Outcome::RepositoryUnknown);
    }
    if Meta(&*batch).manifest_link(repository, digest)?.is_none() {
        return Ok(Outcome::NotFound);
    }
    let tags = Meta(&*batch).tags_of(repository, digest)?;
    let lost: Vec<_> = tags.iter().map(|tag| (tag, digest.clone())).collect();
    if let Some(refusal) = immutable::check(batch, repository, &lost)? {
        return Ok(refusal);
    }
    for tag in &tags {
        batch.delete_tag(repository, tag)?;
    }
    remove(batch, at_ms, repository, digest)?;
    Ok(Outcome::Done)
}

/// Removes a manifest that no tag points at from a repository that has it.
pub(super) fn remove(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), StorageError> {
    batch.delete_manifest_link(repository, digest);
    batch.delete_pull(repository, digest);
    let Some(record) = Meta(&*batch).manifest(digest)? else { return Ok(()) };
    if let Some(subject) = &record.summary.subject {
        batch.delete_referrer(repository, subject, digest);
    }
    for child in children_of(&record.summary) {
        batch.delete_manifest_parent(repository, child, digest);
    }
    for blob in blobs_of(&record.summary) {
        release(batch, at_ms, repository, blob)?;
    }
    match record.links.saturating_sub(1) {
        0 => batch.delete_manifest(digest),
        links => batch.put_manifest(digest, &ManifestRecord { links, ..record })?,
    }
    Ok(())
}

pub(super) fn delete_tag(
    batch: &mut MetaBatch<'_>,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).repository(repository)?.is_none() {
        return Ok(Outcome::RepositoryUnknown);
    }
    let Some(current) = Meta(&*batch).tag(repository, tag)? else { return Ok(Outcome::NotFound) };
    if let Some(refusal) = immutable::check(batch, repository, &[(tag, current.digest)])? {
        return Ok(refusal);
    }
    batch.delete_tag(repository, tag)?;
    Ok(Outcome::Done)
}

/// All tags must meet the condition, or nothing happens to any. Without tags, the condition is about
/// the manifest itself.
fn check_condition(batch: &MetaBatch<'_>, put: &Put) -> Result<Option<Outcome>, StorageError> {
    if put.condition == Condition::None {
        return Ok(None);
    }
    let meta = Meta(batch);
    let mut current = Vec::with_capacity(put.tags.len().max(1));
    for tag in &put.tags {
        current.push(meta.tag(&put.repository, tag)?.map(|record| record.digest));
    }
    if put.tags.is_empty() {
        let linked = meta.manifest_link(&put.repository, &put.digest)?;
        current.push(linked.map(|_| put.digest.clone()));
    }
    let failed = current.into_iter().find(|current| match &put.condition {
        Condition::None => false,
        Condition::IfMatch(expected) => current.as_ref() != Some(expected),
        Condition::IfNoneMatchAny => current.is_some(),
    });
    Ok(failed.map(|current| Outcome::ConditionFailed { current }))
}

/// The refusal, if one of the tags exists, points elsewhere and may not move. A new tag and the same
/// push once more are fine.
fn check_moves(batch: &MetaBatch<'_>, put: &Put) -> Result<Option<Outcome>, StorageError> {
    let mut moved = Vec::new();
    for tag in &put.tags {
        let current = Meta(batch).tag(&put.repository, tag)?;
        moved.extend(current.map(|record| (tag, record.digest)));
    }
    moved.retain(|(_, current)| *current != put.digest);
    immutable::check(batch, &put.repository, &moved)
}

/// What the repository lacks of what the manifest names, and needs.
fn missing_references(batch: &MetaBatch<'_>, put: &Put) -> Result<Vec<Digest>, StorageError> {
    let (meta, repository) = (Meta(batch), &put.repository);
    let allowed: BTreeSet<&Digest> = match &put.absent {
        AbsentReferences::Refused => BTreeSet::new(),
        AbsentReferences::Allowed(digests) => digests.iter().collect(),
    };
    let mut missing = Vec::new();
    for reference in &put.summary.references {
        let present = allowed.contains(&reference.digest)
            || match reference.kind {
                ReferenceKind::Blob => meta.blob_link(repository, &reference.digest)?.is_some(),
                ReferenceKind::Manifest => {
                    meta.manifest_link(repository, &reference.digest)?.is_some()
                }
            };
        if !present {
            missing.push(reference.digest.clone());
        }
    }
    Ok(missing)
}

/// Counts the new link of a manifest into everything it names.
fn store(batch: &mut MetaBatch<'_>, put: Put) -> Result<(), StorageError> {
    let known = Meta(&*batch).manifest(&put.digest)?;
    let links = known.as_ref().map_or(0, |record| record.links).saturating_add(1);
    // A known manifest keeps the summary it was first counted with, so that what is counted down at
    // its end is what was counted up, even if another version parsed it differently.
    let record = match known {
        Some(record) => ManifestRecord { links, ..record },
        None => ManifestRecord { bytes: put.bytes, summary: put.summary, links },
    };
    batch.put_manifest(&put.digest, &record)?;
    for blob in blobs_of(&record.summary) {
        retain(batch, &put.repository, blob)?;
    }
    for child in children_of(&record.summary) {
        batch.put_manifest_parent(&put.repository, child, &put.digest);
    }
    if let Some(subject) = &record.summary.subject {
        let descriptor = Descriptor {
            media_type: put.media_type,
            digest: put.digest.clone(),
            size: record.bytes.len() as u64,
            artifact_type: record.summary.artifact_type.clone(),
            annotations: record.summary.annotations.clone(),
        };
        batch.put_referrer(&put.repository, subject, &ReferrerRecord { descriptor })?;
    }
    Ok(())
}

/// Only blobs are counted. Child manifests of an index are looked for when it is pushed and then no
/// more: one that comes later needs no notice, and one may be deleted under its index. Only retention asks
/// who names them.
fn blobs_of(summary: &ManifestSummary) -> impl Iterator<Item = &Digest> {
    named(summary, ReferenceKind::Blob)
}

fn children_of(summary: &ManifestSummary) -> impl Iterator<Item = &Digest> {
    named(summary, ReferenceKind::Manifest)
}

fn named(summary: &ManifestSummary, kind: ReferenceKind) -> impl Iterator<Item = &Digest> {
    let references = summary.references.iter().filter(move |reference| reference.kind == kind);
    references.map(|reference| &reference.digest)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
