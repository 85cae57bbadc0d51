//! Bounds of the rules about what may go, and which repositories they mean.

use super::settings::RetentionRule;
use crate::{Pattern, PatternError, RepositoryName};

/// Most rules of [`RetentionRule`].
pub const RETENTION_RULES_MAX: usize = 1000;
/// Most patterns in all of them together.
pub const RETENTION_PATTERNS_MAX: usize = 4000;
/// The longest name of a rule, in bytes.
pub const RETENTION_NAME_BYTES_MAX: usize = 512;

impl RetentionRule {
    /// Whether the rule means the repository. Text that is no pattern matches nothing;
    /// [`check_retention`] lets none in.
    #[must_use]
    pub fn means(&self, repository: &RepositoryName) -> bool {
        let patterns = self.repositories.iter().filter_map(|text| Pattern::parse(text).ok());
        patterns.into_iter().any(|pattern| pattern.matches(repository.as_str()))
    }
}

/// Whether the group would take these rules: their number, their length, and that every pattern is one.
pub fn check_retention(rules: &[RetentionRule]) -> Result<(), RetentionError> {
    if rules.len() > RETENTION_RULES_MAX {
        return Err(RetentionError::TooManyRules { found: rules.len() });
    }
    let lists = || rules.iter().flat_map(|rule| [&rule.repositories, &rule.keep_tags]);
    let found = lists().map(Vec::len).sum();
    if found > RETENTION_PATTERNS_MAX {
        return Err(RetentionError::TooManyPatterns { found });
    }
    for rule in rules {
        if rule.name.len() > RETENTION_NAME_BYTES_MAX {
            return Err(RetentionError::NameTooLong { found: rule.name.len() });
        }
        for pattern in rule.repositories.iter().chain(&rule.keep_tags) {
            Pattern::parse(pattern).map_err(|source| RetentionError::Pattern {
                rule: rule.name.clone(),
                pattern: pattern.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// More than [`RETENTION_RULES_MAX`].
    #[error("{found} retention rules, at most {RETENTION_RULES_MAX} are allowed")]
    TooManyRules {
        /// Rules found.
        found: usize,
    },
    /// More than [`RETENTION_PATTERNS_MAX`].
    #[error("{found} patterns in retention rules, at most {RETENTION_PATTERNS_MAX} are allowed")]
    TooManyPatterns {
        /// Patterns found, in all rules.
        found: usize,
    },
    /// A name longer than [`RETENTION_NAME_BYTES_MAX`].
    #[error(
        "the name of a retention rule has {found} bytes, at most {RETENTION_NAME_BYTES_MAX} are allowed"
    )]
    NameTooLong {
        /// Bytes found.
        found: usize,
    },
    /// A text that is no pattern.
    #[error("retention rule {rule:?}: {pattern:?}: {source}")]
    Pattern {
        /// The rule's name.
        rule: String,
        /// The text.
        pattern: String,
        /// Why it is none.
        source: PatternError,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::Untagged;

    fn rule(repositories: &[&str], keep_tags: &[&str]) -> RetentionRule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
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

    #[test]
    fn a_rule_means_what_one_of_its_patterns_matches() {
        let rule = rule(&["dev/**", "base"], &[]);
        assert!(rule.means(&"dev/a/b".parse().unwrap()));
        assert!(rule.means(&"base".parse().unwrap()));
        assert!(!rule.means(&"prod/a".parse().unwrap()));
    }

    #[test]
    fn rules_have_limits() {
        let fine = rule(&["**"], &["v*"]);
        assert_eq!(check_retention(&vec![fine.clone(); 1000]), Ok(()));
        let refused = check_retention(&vec![fine; 1001]).unwrap_err();
        assert_eq!(refused, RetentionError::TooManyRules { found: 1001 });
        let refused = check_retention(&[rule(&vec!["a"; 4000], &["b"])]).unwrap_err();
        assert_eq!(refused, RetentionError::TooManyPatterns { found: 4001 });
        let long = RetentionRule { name: "n".repeat(513), ..rule(&["a"], &[]) };
        let refused = check_retention(&[long]).unwrap_err();
        assert_eq!(refused, RetentionError::NameTooLong { found: 513 });
        assert!(matches!(
            check_retention(&[rule(&["a"], &["[a-z]"])]),
            Err(RetentionError::Pattern { .. })
        ));
    }
}
