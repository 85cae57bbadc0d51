//! `[access]`: who may do what, and how they prove who they are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

/// One entry of `[[access.rules]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// `anonymous`, `authenticated`, `user:NAME`, `robot:NAME`, `certificate:COMMON-NAME` or
    /// `serviceaccount:NAMESPACE/NAME`; a name may be a pattern.
    pub subject: String,
    /// Patterns of repository names: `*` stands for part of a component, `**` for anything.
    pub repositories: Vec<String>,
    /// `pull`, `push`, `delete` or `*`.
    pub actions: Vec<String>,
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
    pub repositories: Vec<String>,
    /// Patterns of tags.
    pub tags: Vec<String>,
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
