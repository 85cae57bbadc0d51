//! Retention: what a repository lets go of.
//!
//! The leader judges by the rules and proposes; here everything is looked at once more, because pushes
//! went on meanwhile. What is not exactly as it was judged stays, and is judged again next time.

use std::collections::BTreeMap;

use tercet_storage::{
    Digest, Meta, MetaBatch, PullRecord, RepositoryName, RetentionRecord, RetentionRule,
    StorageError, Tag, check_retention,
};

use super::{immutable, manifest};
use crate::command::{ExpiredManifest, ExpiredTag, PullSeen};
use crate::outcome::Outcome;

/// Tags and manifests of one [`Command::ApplyRetention`](crate::Command::ApplyRetention) together, at most.
pub const RETIRED_MAX: usize = 256;
/// Pulls of one [`Command::RecordPulls`](crate::Command::RecordPulls), at most.
pub const PULLS_MAX: usize = 512;

/// Replaces all rules.
pub(super) fn set(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    rules: Vec<RetentionRule>,
) -> Result<Outcome, StorageError> {
    if let Err(error) = check_retention(&rules) {
        return Ok(Outcome::Refused(error.to_string()));
    }
    let pulls_since_ms = match Meta(&*batch).retention_record()? {
        Some(before) if notes_pulls_of(&before.rules).eq(notes_pulls_of(&rules)) => {
            before.pulls_since_ms
        }
        _ => at_ms,
    };
    batch.put_retention(&RetentionRecord { rules, pulls_since_ms })?;
    Ok(Outcome::Done)
}

/// What decides for which repositories pulls are noted.
fn notes_pulls_of(rules: &[RetentionRule]) -> impl Iterator<Item = (&[String], bool)> {
    rules.iter().map(|rule| (rule.repositories.as_slice(), rule.keep_pulled_days.is_some()))
}

/// Removes what still is as it was judged: a tag that points where it did since when it did, and that may
/// move; a manifest pushed when it was, without a tag, whose parents and subject are not there or go too.
pub(super) fn apply(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    repository: &RepositoryName,
    tags: Vec<ExpiredTag>,
    manifests: Vec<ExpiredManifest>,
) -> Result<Outcome, StorageError> {
    let found = tags.len().saturating_add(manifests.len());
    if found > RETIRED_MAX {
        return Ok(Outcome::Refused(format!(
            "{found} tags and manifests to retire at once, at most {RETIRED_MAX} are allowed"
        )));
    }
    if Meta(&*batch).repository(repository)?.is_none() {
        return Ok(Outcome::RepositoryUnknown);
    }
    let tags = retire_tags(batch, repository, tags)?;
    let manifests = retirable(batch, repository, manifests)?;
    for digest in &manifests {
        manifest::remove(batch, at_ms, repository, digest)?;
    }
    Ok(Outcome::Retired { tags, manifests })
}

fn retire_tags(
    batch: &mut MetaBatch<'_>,
    repository: &RepositoryName,
    tags: Vec<ExpiredTag>,
) -> Result<Vec<Tag>, StorageError> {
    let guard = immutable::Guard::of(batch, repository)?;
    let mut retired = Vec::new();
    for ExpiredTag { tag, digest, updated_ms } in tags {
        let current = Meta(&*batch).tag(repository, &tag)?;
        let as_judged = current
            .is_some_and(|record| record.digest == digest && record.updated_ms == updated_ms);
        if as_judged && guard.covering(&tag).is_none() {
            batch.delete_tag(repository, &tag)?;
            retired.push(tag);
        }
    }
    Ok(retired)
}

/// Those manifests that may go, all together: an index and its children, a subject and its referrers.
fn retirable(
    batch: &MetaBatch<'_>,
    repository: &RepositoryName,
    manifests: Vec<ExpiredManifest>,
) -> Result<Vec<Digest>, StorageError> {
    let meta = Meta(batch);
    // Each with what keeps it, unless that goes too.
    let mut going: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
    for ExpiredManifest { digest, pushed_ms } in manifests {
        let link = meta.manifest_link(repository, &digest)?;
        let as_judged = link.is_some_and(|link| link.pushed_ms == pushed_ms);
        if !as_judged || meta.is_tagged(repository, &digest)? {
            continue;
        }
        // With more parents than can go at once it stays in any case.
        let mut kept_by = meta.manifest_parents(repository, &digest, RETIRED_MAX + 1)?;
        let subject = meta.manifest(&digest)?.and_then(|record| record.summary.subject);
        if let Some(subject) = subject
            && meta.manifest_link(repository, &subject)?.is_some()
        {
            kept_by.push(subject);
        }
        going.insert(digest, kept_by);
    }
    loop {
        let stays = |kept_by: &[Digest]| kept_by.iter().any(|other| !going.contains_key(other));
        let staying: Vec<Digest> = going
            .iter()
            .filter(|(_, kept_by)| stays(kept_by))
            .map(|(digest, _)| digest.clone())
            .collect();
        if staying.is_empty() {
            return Ok(going.into_keys().collect());
        }
        going.retain(|digest, _| !staying.contains(digest));
    }
}

/// Keeps the latest pull of each manifest that is there. The clock of the replica that saw it counts up
/// to the leader's: one that is ahead would keep a tag for ever.
pub(super) fn record_pulls(
    batch: &mut MetaBatch<'_>,
    at_ms: u64,
    pulls: Vec<PullSeen>,
) -> Result<Outcome, StorageError> {
    if pulls.len() > PULLS_MAX {
        return Ok(Outcome::Refused(format!(
            "{} pulls to note at once, at most {PULLS_MAX} are allowed",
            pulls.len()
        )));
    }
    for PullSeen { repository, digest, at_ms: seen_ms } in pulls {
        if Meta(&*batch).manifest_link(&repository, &digest)?.is_none() {
            continue;
        }
        let last_ms = seen_ms.min(at_ms);
        let known = Meta(&*batch).pull(&repository, &digest)?;
        if known.is_none_or(|known| known.last_ms < last_ms) {
            batch.put_pull(&repository, &digest, &PullRecord { last_ms })?;
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
