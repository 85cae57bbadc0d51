//! Blobs and their visibility in repositories.

use tercet_storage::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, Digest, Meta, MetaBatch, RepositoryName,
    RepositoryRecord, StorageError,
};

use crate::outcome::Outcome;

pub(super) fn committed(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    digest: &Digest,
    size: u64,
    repository: &RepositoryName,
) -> Result<Outcome, StorageError> {
    match Meta(&*batch).blob(digest)? {
        None => {
            let record = BlobRecord {
                size,
                committed_ms: at_ms,
                references: 0,
                unreferenced_since_ms: Some(at_ms),
            };
            batch.put_blob(digest, &record)?;
        }
        Some(record) if record.size != size => {
            return Ok(Outcome::Refused(format!(
                "blob {digest} is known with {} bytes, not {size}",
                record.size
            )));
        }
        Some(record) => renew_grace(batch, at_ms, digest, record)?,
    }
    link_in(batch, at_ms, repository, digest)?;
    Ok(Outcome::Done)
}

pub(super) fn link(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    digest: &Digest,
    from: &RepositoryName,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).blob_link(from, digest)?.is_none() {
        return Ok(Outcome::NotFound);
    }
    let Some(record) = Meta(&*batch).blob(digest)? else { return Ok(Outcome::NotFound) };
    renew_grace(batch, at_ms, digest, record)?;
    link_in(batch, at_ms, repository, digest)?;
    Ok(Outcome::Done)
}

pub(super) fn unlink(
    batch: &mut MetaBatch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, StorageError> {
    if Meta(&*batch).repository(repository)?.is_none() {
        return Ok(Outcome::RepositoryUnknown);
    }
    match Meta(&*batch).blob_link(repository, digest)? {
        None => Ok(Outcome::NotFound),
        Some(link) if link.references > 0 => Ok(Outcome::InUse),
        Some(_) => {
            batch.delete_blob_link(repository, digest);
            Ok(Outcome::Done)
        }
    }
}

/// A blob that nothing references is on its way to collection; whoever relies on it now starts its
/// grace period anew.
fn renew_grace(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    digest: &Digest,
    record: BlobRecord,
) -> Result<(), StorageError> {
    if record.unreferenced_since_ms.is_none() {
        return Ok(());
    }
    batch.put_blob(digest, &BlobRecord { unreferenced_since_ms: Some(at_ms), ..record })
}

/// Counts one manifest of the repository that names the blob. What the repository does not have is
/// counted apart: the manifest may go before the blob has come.
pub(super) fn retain(
    batch: &mut MetaBatch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), StorageError> {
    match Meta(&*batch).blob_link(repository, digest)? {
        Some(link) => {
            count_in(batch, digest, 1)?;
            let references = link.references.saturating_add(1);
            batch.put_blob_link(repository, digest, &BlobLinkRecord { references, ..link })
        }
        None => {
            let awaited = awaited(batch, repository, digest)?.saturating_add(1);
            batch.put_awaited_blob(repository, digest, &AwaitedBlobRecord { references: awaited })
        }
    }
}

/// Takes back what [`retain`] counted, where it is counted now.
pub(super) fn release(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), StorageError> {
    let Some(link) = Meta(&*batch).blob_link(repository, digest)? else {
        match awaited(batch, repository, digest)?.saturating_sub(1) {
            0 => batch.delete_awaited_blob(repository, digest),
            references => {
                batch.put_awaited_blob(repository, digest, &AwaitedBlobRecord { references })?;
            }
        }
        return Ok(());
    };
    if let Some(blob) = Meta(&*batch).blob(digest)? {
        let references = blob.references.saturating_sub(1);
        let unreferenced_since_ms = (references == 0).then_some(at_ms);
        batch.put_blob(digest, &BlobRecord { references, unreferenced_since_ms, ..blob })?;
    }
    let references = link.references.saturating_sub(1);
    let linked_ms = match references {
        0 if links_have_a_grace(batch)? => at_ms,
        _ => link.linked_ms,
    };
    batch.put_blob_link(repository, digest, &BlobLinkRecord { linked_ms, references })
}

/// From level 2 on, `linked_ms` of a link that no manifest counts is when it was last pushed, mounted or
/// let go of: a repository in which nothing else is left goes after a grace from there. Level 1 must go on
/// writing what its replicas write.
fn links_have_a_grace(batch: &MetaBatch<'_>) -> Result<bool, StorageError> {
    Ok(Meta(batch).feature_level()?.is_some_and(|record| record.level >= 2))
}

fn awaited(
    batch: &MetaBatch<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<u32, StorageError> {
    Ok(Meta(batch).awaited_blob(repository, digest)?.map_or(0, |record| record.references))
}

/// Counts further manifests into the blob itself.
fn count_in(
    batch: &mut MetaBatch<'_>,
    digest: &Digest,
    manifests: u32,
) -> Result<(), StorageError> {
    let Some(blob) = Meta(&*batch).blob(digest)? else { return Ok(()) };
    let references = blob.references.saturating_add(u64::from(manifests));
    batch.put_blob(digest, &BlobRecord { references, unreferenced_since_ms: None, ..blob })
}

/// Makes the blob visible. Manifests that have waited for it count from here on.
fn link_in(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), StorageError> {
    ensure_repository(batch, at_ms, repository)?;
    if let Some(link) = Meta(&*batch).blob_link(repository, digest)? {
        if link.references == 0 && links_have_a_grace(batch)? {
            let renewed = BlobLinkRecord { linked_ms: at_ms, ..link };
            batch.put_blob_link(repository, digest, &renewed)?;
        }
        return Ok(());
    }
    let references = awaited(batch, repository, digest)?;
    if references > 0 {
        batch.delete_awaited_blob(repository, digest);
        count_in(batch, digest, references)?;
    }
    batch.put_blob_link(repository, digest, &BlobLinkRecord { linked_ms: at_ms, references })
}

/// A repository exists from the first thing that is pushed to it.
pub(super) fn ensure_repository(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
) -> Result<(), StorageError> {
    if Meta(&*batch).repository(repository)?.is_none() {
        batch.put_repository(repository, &RepositoryRecord { created_ms: at_ms })?;
    }
    Ok(())
}
