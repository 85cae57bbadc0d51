//! Tags that stay where they first pointed.

use tercet_storage::{
    Digest, ImmutableTagRule, ImmutableTagsRecord, Meta, MetaBatch, Pattern, RepositoryName,
    StorageError, Tag, check_immutable_tags,
};

use crate::outcome::Outcome;

/// Replaces all rules. They hold for what is applied from now on; nothing is judged afterwards.
pub(super) fn set(
    batch: &mut MetaBatch<'_>,
    rules: Vec<ImmutableTagRule>,
) -> Result<Outcome, StorageError> {
    if let Err(error) = check_immutable_tags(&rules) {
        return Ok(Outcome::Refused(error.to_string()));
    }
    batch.put_immutable_tags(&ImmutableTagsRecord { rules })?;
    Ok(Outcome::Done)
}

/// The refusal, if a rule covers one of `tags`, which are about to leave what they point at.
pub(super) fn check(
    batch: &MetaBatch<'_>,
    repository: &RepositoryName,
    tags: &[(&Tag, Digest)],
) -> Result<Option<Outcome>, StorageError> {
    if tags.is_empty() {
        return Ok(None);
    }
    let rules = Meta(batch).immutable_tags()?;
    let rules: Vec<(Vec<Pattern>, String)> =
        rules.into_iter().map(|rule| (rule.tags_in(repository), rule.name)).collect();
    for (tag, current) in tags {
        let covers = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(tag.as_str()));
        if let Some((_, rule)) = rules.iter().find(|(patterns, _)| covers(patterns)) {
            let (tag, rule, current) = ((*tag).clone(), rule.clone(), current.clone());
            return Ok(Some(Outcome::TagImmutable { tag, rule, current }));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "immutable_tests.rs"]
mod tests;
