//! Bounds of the rules that are made of patterns, whatever they are about.

use std::fmt;

use super::settings::{ImmutableTagRule, RetentionRule};
use crate::{Pattern, PatternError};

/// Most rules of one kind.
pub const RULES_MAX: usize = 1000;
/// Most patterns in all of them together.
pub const RULE_PATTERNS_MAX: usize = 4000;
/// The longest name of a rule, in bytes.
pub const RULE_NAME_BYTES_MAX: usize = 512;

/// Whether the group would take these rules: their number, their length, and that every pattern is one.
pub fn check_immutable_tags(rules: &[ImmutableTagRule]) -> Result<(), RulesError> {
    check(RuleKind::ImmutableTag, rules)
}

/// The same of rules about what may go.
pub fn check_retention(rules: &[RetentionRule]) -> Result<(), RulesError> {
    check(RuleKind::Retention, rules)
}

/// What has bounds in a rule of any kind.
struct RuleParts<'a> {
    name: &'a str,
    patterns: [&'a Vec<String>; 2],
}

impl<'a> From<&'a ImmutableTagRule> for RuleParts<'a> {
    fn from(rule: &'a ImmutableTagRule) -> Self {
        Self { name: &rule.name, patterns: [&rule.repositories, &rule.tags] }
    }
}

impl<'a> From<&'a RetentionRule> for RuleParts<'a> {
    fn from(rule: &'a RetentionRule) -> Self {
        Self { name: &rule.name, patterns: [&rule.repositories, &rule.keep_tags] }
    }
}

fn check<'a, R>(kind: RuleKind, rules: &'a [R]) -> Result<(), RulesError>
where
    RuleParts<'a>: From<&'a R>,
{
    if rules.len() > RULES_MAX {
        return Err(RulesError::TooManyRules { kind, found: rules.len() });
    }
    let parts = || rules.iter().map(RuleParts::from);
    let found = parts().flat_map(|rule| rule.patterns).map(Vec::len).sum();
    if found > RULE_PATTERNS_MAX {
        return Err(RulesError::TooManyPatterns { kind, found });
    }
    for RuleParts { name, patterns } in parts() {
        if name.len() > RULE_NAME_BYTES_MAX {
            return Err(RulesError::NameTooLong { kind, found: name.len() });
        }
        for pattern in patterns.into_iter().flatten() {
            Pattern::parse(pattern).map_err(|source| RulesError::Pattern {
                kind,
                rule: name.to_owned(),
                pattern: pattern.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// What rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Tags that do not move: [`ImmutableTagRule`].
    ImmutableTag,
    /// What may go: [`RetentionRule`].
    Retention,
}

impl RuleKind {
    fn article(self) -> &'static str {
        match self {
            Self::ImmutableTag => "an",
            Self::Retention => "a",
        }
    }
}

impl fmt::Display for RuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ImmutableTag => "immutable-tag",
            Self::Retention => "retention",
        })
    }
}

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// More than [`RULES_MAX`].
    #[error("{found} {kind} rules, at most {RULES_MAX} are allowed")]
    TooManyRules {
        /// What they are about.
        kind: RuleKind,
        /// Rules found.
        found: usize,
    },
    /// More than [`RULE_PATTERNS_MAX`].
    #[error("{found} patterns in {kind} rules, at most {RULE_PATTERNS_MAX} are allowed")]
    TooManyPatterns {
        /// What the rules are about.
        kind: RuleKind,
        /// Patterns found, in all rules.
        found: usize,
    },
    /// A name longer than [`RULE_NAME_BYTES_MAX`].
    #[error(
        "the name of {} {kind} rule has {found} bytes, at most {RULE_NAME_BYTES_MAX} are allowed",
        .kind.article()
    )]
    NameTooLong {
        /// What the rule is about.
        kind: RuleKind,
        /// Bytes found.
        found: usize,
    },
    /// A text that is no pattern.
    #[error("{kind} rule {rule:?}: {pattern:?}: {source}")]
    Pattern {
        /// What the rule is about.
        kind: RuleKind,
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
    use super::super::settings::samples::{immutable, retention};
    use super::*;

    #[test]
    fn immutable_tag_rules_have_limits() {
        let kind = RuleKind::ImmutableTag;
        let fine = immutable(&["**"], &["v*"]);
        assert_eq!(check_immutable_tags(&vec![fine.clone(); 1000]), Ok(()));
        let refused = check_immutable_tags(&vec![fine; 1001]).unwrap_err();
        assert_eq!(refused, RulesError::TooManyRules { kind, found: 1001 });
        let many = immutable(&vec!["a"; 4000], &["b"]);
        let refused = check_immutable_tags(&[many]).unwrap_err();
        assert_eq!(refused, RulesError::TooManyPatterns { kind, found: 4001 });
        let long = ImmutableTagRule { name: "n".repeat(513), ..immutable(&["a"], &["b"]) };
        let refused = check_immutable_tags(&[long]).unwrap_err();
        assert_eq!(refused, RulesError::NameTooLong { kind, found: 513 });
        let wrong = immutable(&["a"], &["[0-9]"]);
        let refused = check_immutable_tags(&[wrong]).unwrap_err().to_string();
        assert!(refused.contains("releases") && refused.contains("[0-9]"), "{refused}");
    }

    #[test]
    fn retention_rules_have_limits() {
        let kind = RuleKind::Retention;
        let fine = retention(&["**"], &["v*"]);
        assert_eq!(check_retention(&vec![fine.clone(); 1000]), Ok(()));
        let refused = check_retention(&vec![fine; 1001]).unwrap_err();
        assert_eq!(refused, RulesError::TooManyRules { kind, found: 1001 });
        let refused = check_retention(&[retention(&vec!["a"; 4000], &["b"])]).unwrap_err();
        assert_eq!(refused, RulesError::TooManyPatterns { kind, found: 4001 });
        let long = RetentionRule { name: "n".repeat(513), ..retention(&["a"], &[]) };
        let refused = check_retention(&[long]).unwrap_err();
        assert_eq!(refused, RulesError::NameTooLong { kind, found: 513 });
        assert!(matches!(
            check_retention(&[retention(&["a"], &["[a-z]"])]),
            Err(RulesError::Pattern { .. })
        ));
    }

    #[test]
    fn refusals_say_which_rules() {
        let said = |kind| RulesError::NameTooLong { kind, found: 513 }.to_string();
        let limit = "rule has 513 bytes, at most 512 are allowed";
        assert_eq!(said(RuleKind::ImmutableTag), format!("the name of an immutable-tag {limit}"));
        assert_eq!(said(RuleKind::Retention), format!("the name of a retention {limit}"));
    }
}
