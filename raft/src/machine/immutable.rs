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
    let guard = Guard::of(batch, repository)?;
    for (tag, current) in tags {
        if let Some(rule) = guard.covering(tag) {
            let (tag, rule, current) = ((*tag).clone(), rule.to_owned(), current.clone());
            return Ok(Some(Outcome::TagImmutable { tag, rule, current }));
        }
    }
    Ok(None)
}

/// The rules as they mean one repository.
pub(super) struct Guard {
    rules: Vec<(Vec<Pattern>, String)>,
}

impl Guard {
    pub(super) fn of(
        batch: &MetaBatch<'_>,
        repository: &RepositoryName,
    ) -> Result<Self, StorageError> {
        let rules = Meta(batch).immutable_tags()?.into_iter();
        Ok(Self { rules: rules.map(|rule| (rule.tags_in(repository), rule.name)).collect() })
    }

    /// Name of the first rule that covers the tag.
    pub(super) fn covering(&self, tag: &Tag) -> Option<&str> {
        let covers = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(tag.as_str()));
        self.rules.iter().find(|(patterns, _)| covers(patterns)).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
#[path = "immutable_tests.rs"]
mod tests;
