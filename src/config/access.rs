//! `[access]`: who may do what, and how they prove who they are.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tercet_storage::{ImmutableTagRule, Pattern};

use crate::auth::{ActionWord, Subject};

/// `[access]`. Without any rule there is no access control, and the registry listener stays on loopback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// File of users and bcrypt hashes, as `htpasswd -B` writes it; read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<PathBuf>,
    /// URL of the token endpoint as clients reach it, when a proxy in front changes scheme or host.
    /// Default: `/token` on the host that the client asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_realm: Option<String>,
    /// The `service` that tokens are issued for; a token for another one is refused.
    pub service: String,
    /// How long a token is valid, in seconds.
    pub token_seconds: u64,
    /// Age at which the key that signs tokens is replaced, in hours.
    pub token_key_rotation_hours: u64,
    /// Who may do what. What no rule allows is denied.
    pub rules: Vec<AccessRule>,
    /// Accounts of machines.
    pub robots: Vec<Robot>,
    /// Tags that never move once they are there. The leader's list counts for the cluster.
    pub immutable_tags: Vec<ImmutableTags>,
    /// Kubernetes service accounts as users.
    pub kubernetes: Kubernetes,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            htpasswd: None,
            token_realm: None,
            service: "tercet".to_owned(),
            token_seconds: 300,
            token_key_rotation_hours: 24,
            rules: Vec::new(),
            robots: Vec::new(),
            immutable_tags: Vec::new(),
            kubernetes: Kubernetes::default(),
        }
    }
}

impl Access {
    /// `[[access.immutable_tags]]` as the group keeps it, in the order of the file.
    #[must_use]
    pub fn immutable_tag_rules(&self) -> Vec<ImmutableTagRule> {
        let texts = |patterns: &[Pattern]| {
            patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect()
        };
        let rules = self.immutable_tags.iter().map(|rule| ImmutableTagRule {
            name: rule.name.clone(),
            repositories: texts(&rule.repositories),
            tags: texts(&rule.tags),
        });
        rules.collect()
    }
}

/// One entry of `[[access.rules]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// `anonymous`, `authenticated`, `user:NAME`, `robot:NAME`, `certificate:COMMON-NAME` or
    /// `serviceaccount:NAMESPACE/NAME`; a name may be a pattern.
    pub subject: Subject,
    /// Patterns of repository names: `*` stands for part of a component, `**` for anything.
    #[serde(deserialize_with = "patterns")]
    pub repositories: Vec<Pattern>,
    /// `pull`, `push`, `delete` or `*`.
    pub actions: Vec<ActionWord>,
}

/// One entry of `[[access.robots]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Robot {
    /// The user name it logs in with is `robot:NAME`.
    pub name: String,
    /// bcrypt hash of its secret.
    pub secret_bcrypt: String,
    /// When it stops working: RFC 3339, in UTC. Without it: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// One entry of `[[access.immutable_tags]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImmutableTags {
    /// Named in the message that a client gets.
    pub name: String,
    /// Patterns of repository names.
    #[serde(deserialize_with = "patterns")]
    pub repositories: Vec<Pattern>,
    /// Patterns of tags.
    #[serde(deserialize_with = "patterns")]
    pub tags: Vec<Pattern>,
}

/// `[access.kubernetes]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// Whether service-account tokens are asked about at the API server (TokenReview).
    pub enabled: bool,
    /// Audiences of which a token must have one. Empty: the API server's own.
    pub audiences: Vec<String>,
    /// A kubeconfig file for the API server. Default: the pod's own service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
}

/// A list of patterns. TOML gives an error in a list the place of the list, so the error has to say which
/// entry it is about.
fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parsed = texts.iter().map(|text| {
        Pattern::parse(text).map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn rules_about_tags_are_those_of_the_file_in_its_order() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let rule = |name: &str| ImmutableTags {
            name: name.to_owned(),
            repositories: list(&["prod/**", "base"]),
            tags: list(&["v*"]),
        };
        let access = Access { immutable_tags: vec![rule("b"), rule("a")], ..Access::default() };
        let rules = access.immutable_tag_rules();
        assert_eq!(rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(rules[0].repositories, ["prod/**", "base"]);
        assert_eq!(rules[0].tags, ["v*"]);
        assert!(Access::default().immutable_tag_rules().is_empty());
    }
}
