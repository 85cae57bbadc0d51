//! `[gc]`, `[retention]`, `[scrub]`: what the cluster does by itself with what it stores.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tercet_storage::{Pattern, RetentionRule, Untagged};

/// The same, at the least, whatever the configuration says.
const PUBLISH_GRACE_MIN: Duration = Duration::from_secs(1);
/// The most that a push takes between its last byte and its commit, many times over.
const PUBLISH_GRACE: Duration = Duration::from_secs(10 * 60);

/// `[gc]`: blobs that no manifest names go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gc {
    /// Whether blobs are collected at all.
    pub enabled: bool,
    /// How long a blob stays after nothing names it any more, or after its upload, in seconds.
    pub grace_seconds: u64,
    /// Time between two looks for such blobs, in seconds.
    pub interval_seconds: u64,
    /// Age at which a file that the cluster does not know is removed, in seconds.
    pub orphan_grace_seconds: u64,
}

impl Default for Gc {
    fn default() -> Self {
        Self {
            enabled: true,
            grace_seconds: 86_400,
            interval_seconds: 300,
            orphan_grace_seconds: 3_600,
        }
    }
}

impl Gc {
    /// [`Gc::grace_seconds`] as a duration.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    /// [`Gc::interval_seconds`] as a duration.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds)
    }

    /// [`Gc::orphan_grace_seconds`] as a duration.
    #[must_use]
    pub fn orphan_grace(&self) -> Duration {
        Duration::from_secs(self.orphan_grace_seconds)
    }

    /// How long a file that was just published is never taken for garbage, even of a blob that was just
    /// collected: its owner may be about to commit it.
    #[must_use]
    pub fn publish_grace(&self) -> Duration {
        self.orphan_grace().clamp(PUBLISH_GRACE_MIN, PUBLISH_GRACE)
    }
}

/// What is done with what the retention rules let go of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionMode {
    /// It is said in the log and the metrics, and stays.
    #[default]
    Report,
    /// It is removed.
    Enforce,
}

/// `[retention]`: tags and untagged manifests that may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// What is done with what the rules let go of.
    pub mode: RetentionMode,
    /// Time between two judgements, in seconds.
    pub interval_seconds: u64,
    /// The first that means a repository decides.
    pub rules: Vec<RetentionRuleEntry>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { mode: RetentionMode::default(), interval_seconds: 3_600, rules: Vec::new() }
    }
}

impl Retention {
    /// [`Retention::interval_seconds`] as a duration.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds)
    }

    /// The rules as the group keeps them, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> Vec<RetentionRule> {
        let texts = |patterns: &[Pattern]| {
            patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect()
        };
        let rules = self.rules.iter().map(|rule| RetentionRule {
            name: rule.name.clone(),
            repositories: texts(&rule.repositories),
            keep_last: rule.keep_last,
            keep_younger_days: rule.keep_younger_days,
            keep_pulled_days: rule.keep_pulled_days,
            keep_tags: texts(&rule.keep_tags),
            untagged: match rule.untagged {
                UntaggedPolicy::Keep => Untagged::Keep,
                UntaggedPolicy::Delete => Untagged::DeleteAfterDays(rule.untagged_older_days),
            },
        });
        rules.collect()
    }
}

/// One entry of `[[retention.rules]]`. A tag stays if one of the `keep_` conditions holds for it; a rule
/// with none of them lets no tag go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRuleEntry {
    /// Named in reports.
    pub name: String,
    /// Patterns of repository names.
    pub repositories: Vec<Pattern>,
    /// Tags that were moved last, so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// Tags that were moved within so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_younger_days: Option<u32>,
    /// Tags whose manifest was pulled within so many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_pulled_days: Option<u32>,
    /// Patterns of tags that stay.
    #[serde(default)]
    pub keep_tags: Vec<Pattern>,
    /// What becomes of manifests that neither a tag nor an index names.
    #[serde(default)]
    pub untagged: UntaggedPolicy,
    /// Days since its push after which such a manifest goes.
    #[serde(default = "untagged_days")]
    pub untagged_older_days: u32,
}

/// A week: long enough for a build that pushes by digest and tags at its end.
fn untagged_days() -> u32 {
    7
}

/// What becomes of manifests that neither a tag nor an index names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UntaggedPolicy {
    /// They stay.
    #[default]
    Keep,
    /// They go after `untagged_older_days`.
    Delete,
}

/// `[scrub]`: stored bytes are read again before somebody needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// Whether it is done.
    pub enabled: bool,
    /// Time in which every blob is read once, in days.
    pub period_days: u32,
    /// The most that is read for it, in bytes per second.
    pub bytes_per_second: u64,
}

impl Default for Scrub {
    fn default() -> Self {
        Self { enabled: true, period_days: 30, bytes_per_second: 16 * 1024 * 1024 }
    }
}
