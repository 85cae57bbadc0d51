//! What the replicas must agree on besides content: rules and keys, each stored as one setting.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Pattern, RepositoryName};

/// Tags that stay where they first pointed. A tag is meant if one pattern of each list matches; an empty
/// list means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImmutableTagRule {
    /// What refusals call it.
    pub name: String,
    /// Patterns of repository names; see [`Pattern`].
    pub repositories: Vec<String>,
    /// Patterns of tags.
    pub tags: Vec<String>,
}

impl ImmutableTagRule {
    /// Patterns of the tags that the rule means in one repository; none if it does not mean the
    /// repository. Text that is no pattern matches nothing;
    /// [`check_immutable_tags`](crate::check_immutable_tags) lets none in.
    #[must_use]
    pub fn tags_in(&self, repository: &RepositoryName) -> Vec<Pattern> {
        let mut repositories = patterns(&self.repositories);
        if repositories.any(|pattern| pattern.matches(repository.as_str())) {
            patterns(&self.tags).collect()
        } else {
            Vec::new()
        }
    }
}

fn patterns(texts: &[String]) -> impl Iterator<Item = Pattern> {
    texts.iter().filter_map(|text| Pattern::parse(text).ok())
}

/// What a repository keeps. A tag stays if one of the `keep_` conditions of the first rule that means its
/// repository holds for it; a repository that no rule means keeps everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRule {
    /// What reports and logs call it.
    pub name: String,
    /// Patterns of repository names; see [`Pattern`].
    pub repositories: Vec<String>,
    /// Tags that were moved last, so many.
    pub keep_last: Option<u32>,
    /// Tags that were moved within so many days.
    pub keep_younger_days: Option<u32>,
    /// Tags whose manifest was pulled within so many days.
    pub keep_pulled_days: Option<u32>,
    /// Patterns of tags that stay.
    pub keep_tags: Vec<String>,
    /// What becomes of manifests that neither a tag nor an index of the repository names.
    pub untagged: Untagged,
}

impl RetentionRule {
    /// Whether the rule means the repository. Text that is no pattern matches nothing;
    /// [`check_retention`](crate::check_retention) lets none in.
    #[must_use]
    pub fn means(&self, repository: &RepositoryName) -> bool {
        patterns(&self.repositories).any(|pattern| pattern.matches(repository.as_str()))
    }
}

/// What becomes of manifests without a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Untagged {
    /// They stay.
    #[default]
    Keep,
    /// They go once they were pushed so many days ago.
    DeleteAfterDays(u32),
}

/// Somebody who needs every blob to stay for a while, such as a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionHold {
    /// Who.
    pub holder: String,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// Longest time for which one command may hold collection, in milliseconds.
pub const COLLECTION_HOLD_MAX_MS: u64 = 60 * 60 * 1_000;

impl CollectionHold {
    /// Whether it counts at that time. One that ends later than any can was stamped by a clock that was wrong,
    /// and would last for ever.
    #[must_use]
    pub fn is_active(&self, at_ms: u64) -> bool {
        at_ms < self.until_ms && self.until_ms - at_ms <= 2 * COLLECTION_HOLD_MAX_MS
    }
}

/// A key that signs tokens and verifies them, the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// What a token calls it (`kid`).
    pub id: String,
    /// The key itself.
    pub secret: Secret,
    /// When it was made, in milliseconds since the Unix epoch, on the clock of the leader of then.
    pub created_ms: u64,
}

/// 32 secret bytes. Nothing that prints shows them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes charge of the bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever signs or verifies.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::{ImmutableTagRule, RetentionRule, Untagged};

    pub(in crate::meta) fn immutable(repositories: &[&str], tags: &[&str]) -> ImmutableTagRule {
        ImmutableTagRule {
            name: "releases".to_owned(),
            repositories: owned(repositories),
            tags: owned(tags),
        }
    }

    pub(in crate::meta) fn retention(repositories: &[&str], keep_tags: &[&str]) -> RetentionRule {
        RetentionRule {
            name: "r".to_owned(),
            repositories: owned(repositories),
            keep_last: None,
            keep_younger_days: None,
            keep_pulled_days: None,
            keep_tags: owned(keep_tags),
            untagged: Untagged::Keep,
        }
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::samples::{immutable, retention};
    use super::*;

    #[test]
    fn a_rule_covers_a_tag_if_one_pattern_of_each_list_does() {
        let rule = immutable(&["prod/**", "base"], &["v*", "release-?"]);
        let covers = |repository: &str, tag: &str| {
            let tags = rule.tags_in(&repository.parse().unwrap());
            tags.iter().any(|pattern| pattern.matches(tag))
        };
        assert!(covers("prod/a/b", "v1"));
        assert!(covers("base", "release-1"));
        assert!(!covers("base", "latest"));
        assert!(!covers("dev/a", "v1"));
    }

    #[test]
    fn an_empty_list_covers_nothing() {
        let repository = "a".parse().unwrap();
        assert!(immutable(&[], &["**"]).tags_in(&repository).is_empty());
        assert!(immutable(&["**"], &[]).tags_in(&repository).is_empty());
    }

    #[test]
    fn a_rule_means_what_one_of_its_patterns_matches() {
        let rule = retention(&["dev/**", "base"], &[]);
        assert!(rule.means(&"dev/a/b".parse().unwrap()));
        assert!(rule.means(&"base".parse().unwrap()));
        assert!(!rule.means(&"prod/a".parse().unwrap()));
    }

    #[test]
    fn a_key_never_prints_its_secret() {
        let key = TokenKey { id: "k1".into(), secret: Secret::new([0xab; 32]), created_ms: 1 };
        let printed = format!("{key:?} {key:#?}");
        assert!(printed.contains("k1") && printed.contains("<secret>"), "{printed}");
        assert!(!printed.contains("171") && !printed.to_lowercase().contains("ab, "), "{printed}");
    }
}
