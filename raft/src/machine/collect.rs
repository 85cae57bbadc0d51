//! Garbage collection: forgetting blobs that nothing references, and what they leave empty.
//!
//! Everything is judged here, where it is applied, and not where it was proposed: between the two a
//! manifest may have named the blob, and both orders must come out right.

use tercet_storage::{
    BlobRecord, COLLECTION_HOLD_MAX_MS, CollectionHold, CollectionHoldsRecord, Digest, Meta,
    MetaBatch, RepositoryName, StorageError,
};

use crate::outcome::Outcome;

/// Links that one command removes at most. What is over is left to the next round, so that a blob which
/// every repository saw once cannot make one write batch of any size.
const LINKS_MAX: usize = 65_536;
/// Links that are read at a time.
const LINKS_PAGE: usize = 1_024;
/// Holds at a time, and the length of a holder's name in bytes.
const HOLDS_MAX: usize = 64;
const HOLDER_BYTES_MAX: usize = 128;

/// Forgets those of `digests` that nothing has referenced for `grace_ms`. Manifests that await one of them
/// elsewhere are not touched: they count on no record, and on the next push of the blob if it comes.
pub(super) fn collect(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    digests: Vec<Digest>,
    grace_ms: u64,
) -> Result<Outcome, StorageError> {
    if is_held(batch, at_ms)? {
        return Ok(Outcome::Collected(Vec::new()));
    }
    let mut budget = LINKS_MAX;
    let mut collected = Vec::new();
    for digest in digests {
        let Some(record) = Meta(&*batch).blob(&digest)? else { continue };
        if !has_passed(&record, at_ms, grace_ms) {
            continue;
        }
        match unlink_everywhere(batch, &digest, &mut budget)? {
            Links::Gone => {
                batch.delete_blob(&digest);
                collected.push(digest);
            }
            Links::Referenced => {}
            Links::Left => break,
        }
    }
    Ok(Outcome::Collected(collected))
}

/// Lets the grace of blobs without a reference begin anew. [`Outcome::NotFound`] if one of them is not
/// known (any more); the others are renewed all the same.
pub(super) fn renew(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    digests: &[Digest],
) -> Result<Outcome, StorageError> {
    let mut outcome = Outcome::Done;
    for digest in digests {
        match Meta(&*batch).blob(digest)? {
            None => outcome = Outcome::NotFound,
            Some(record) if record.unreferenced_since_ms.is_some() => {
                let unreferenced_since_ms = Some(at_ms);
                batch.put_blob(digest, &BlobRecord { unreferenced_since_ms, ..record })?;
            }
            Some(_) => {}
        }
    }
    Ok(outcome)
}

/// Keeps every blob until `until_ms`, or no longer if that is 0.
pub(super) fn hold(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    holder: String,
    until_ms: u64,
) -> Result<Outcome, StorageError> {
    if holder.is_empty() || holder.len() > HOLDER_BYTES_MAX {
        let refusal = format!("a holder's name has 1 to {HOLDER_BYTES_MAX} bytes");
        return Ok(Outcome::Refused(refusal));
    }
    let mut holds = Meta(&*batch).collection_holds()?;
    holds.retain(|hold| hold.holder != holder && hold.is_active(at_ms));
    if until_ms != 0 && until_ms <= at_ms {
        let refusal = "the hold would be over already: the clocks of the replica that asks and of the leader differ too much";
        return Ok(Outcome::Refused(refusal.to_owned()));
    }
    let until_ms = until_ms.min(at_ms.saturating_add(COLLECTION_HOLD_MAX_MS));
    if until_ms > at_ms {
        if holds.len() >= HOLDS_MAX {
            let refusal = format!("{HOLDS_MAX} holders keep blobs from being collected already");
            return Ok(Outcome::Refused(refusal));
        }
        holds.push(CollectionHold { holder, until_ms });
        holds.sort_by(|a, b| a.holder.cmp(&b.holder));
    }
    batch.put_collection_holds(&CollectionHoldsRecord { holds })?;
    Ok(Outcome::Done)
}

/// Forgets repositories without a manifest whose blobs nothing in them has named for `grace_ms`, together
/// with their sight of those blobs. The blobs themselves go by [`collect`], if nobody else names them.
pub(super) fn forget_repositories(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repositories: &[RepositoryName],
    grace_ms: u64,
) -> Result<Outcome, StorageError> {
    if is_held(batch, at_ms)? {
        return Ok(Outcome::Done);
    }
    let mut budget = LINKS_MAX;
    for repository in repositories {
        if !is_abandoned(batch, at_ms, repository, grace_ms, budget)? {
            continue;
        }
        loop {
            let page = Meta(&*batch).blob_links(repository, None, LINKS_PAGE)?;
            if page.is_empty() {
                break;
            }
            for (digest, _) in page {
                batch.delete_blob_link(repository, &digest);
                budget = budget.saturating_sub(1);
            }
        }
        batch.delete_repository(repository);
    }
    Ok(Outcome::Done)
}

/// Whether nothing of a repository is worth keeping. One with more than `links_max` blobs is not judged.
fn is_abandoned(
    batch: &MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    grace_ms: u64,
    links_max: usize,
) -> Result<bool, StorageError> {
    let meta = Meta(batch);
    let Some(record) = meta.repository(repository)? else { return Ok(false) };
    let is_old = |since_ms: u64| since_ms.saturating_add(grace_ms) <= at_ms;
    if !is_old(record.created_ms) || !meta.manifest_links(repository, None, 1)?.is_empty() {
        return Ok(false);
    }
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = meta.blob_links(repository, after.as_ref(), LINKS_PAGE)?;
        seen += page.len();
        let kept = |(_, link): &(Digest, tercet_storage::BlobLinkRecord)| {
            link.references > 0 || !is_old(link.linked_ms)
        };
        if seen > links_max || page.iter().any(kept) {
            return Ok(false);
        }
        match page.into_iter().next_back() {
            Some((last, _)) => after = Some(last),
            None => return Ok(true),
        }
    }
}

fn has_passed(record: &BlobRecord, at_ms: u64, grace_ms: u64) -> bool {
    record.references == 0
        && record
            .unreferenced_since_ms
            .is_some_and(|since_ms| since_ms.saturating_add(grace_ms) <= at_ms)
}

enum Links {
    /// No repository sees the blob any more.
    Gone,
    /// Some still do: there were more than the budget.
    Left,
    /// A manifest names it, although the blob's own count says otherwise.
    Referenced,
}

fn unlink_everywhere(
    batch: &mut MetaBatch<'_>,
    digest: &Digest,
    budget: &mut usize,
) -> Result<Links, StorageError> {
    loop {
        let page = LINKS_PAGE.min(*budget);
        let repositories = Meta(&*batch).blob_repositories(digest, page.max(1))?;
        if repositories.is_empty() {
            return Ok(Links::Gone);
        }
        if page == 0 {
            return Ok(Links::Left);
        }
        for repository in repositories {
            let link = Meta(&*batch).blob_link(&repository, digest)?;
            if link.is_some_and(|link| link.references > 0) {
                // Two counts of one thing disagree: the one that keeps content is believed.
                tracing::error!(%digest, %repository, "a blob without references is named by a manifest; it stays");
                return Ok(Links::Referenced);
            }
            batch.delete_blob_link(&repository, digest);
            *budget = budget.saturating_sub(1);
        }
    }
}

fn is_held(batch: &MetaBatch<'_>, at_ms: u64) -> Result<bool, StorageError> {
    Ok(Meta(batch).collection_holds()?.iter().any(|hold| hold.is_active(at_ms)))
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
