//! Who asks, what they may do, and what is written down about it.

pub mod accounts;
pub mod action;
pub mod audit;
pub mod authenticator;
pub mod bcrypt_hash;
mod credentials;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
pub mod htpasswd;
pub mod kubernetes;
mod login;
mod password;
pub mod principal;
mod reload;
pub mod robots;
pub mod rules;
mod startup;
pub mod subject;
mod throttle;
pub mod token;
mod upload_owner;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use accounts::{Accounts, AccountsError};
pub use action::{Action, ActionWord, Actions};
pub use authenticator::{
    Authenticated, AuthenticationError, Authenticator, AuthenticatorParts, IssueError, RequestFacts,
};
pub use guard::{Decision, Rights};
pub use kubernetes::{KubernetesError, TokenReviewer};
pub use principal::Principal;
pub use robots::Robots;
pub use rules::{Pullable, Rules};
pub use startup::{PrepareError, Prepared, StartParts};
pub use subject::Subject;
pub use token::{Grant, Grants, Issued, Keyring};
pub use upload_owner::{is_opened_by, upload_id};

/// What stands in front of every route of the registry.
pub struct AccessControl {
    /// Finds out who asks.
    pub authenticator: Arc<Authenticator>,
    /// What they may do. Swapped whole when the configuration is read again.
    pub rules: ArcSwap<Rules>,
}

impl AccessControl {
    /// Joins the parts.
    #[must_use]
    pub fn new(authenticator: Arc<Authenticator>, rules: Rules) -> Arc<Self> {
        Arc::new(Self { authenticator, rules: ArcSwap::from_pointee(rules) })
    }
}
