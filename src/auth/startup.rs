//! From the configuration to access control that runs.

use std::sync::Arc;

use tercet_raft::Consensus;
use tercet_storage::Clock;

use super::AccessControl;
use super::accounts::{Accounts, AccountsError};
use super::authenticator::{Authenticator, AuthenticatorParts};
use super::kubernetes::{KubernetesError, TokenReviewer};
use super::reload::Reload;
use super::rules::Rules;
use super::token::Keyring;
use crate::config::{Access, Config, Sources};
use crate::ops::Metrics;
use crate::worker::Workers;

/// Everything that access control reads from outside, read. Done before anything is bound, so that a
/// wrong line in the htpasswd file is an error of the start.
pub struct Prepared {
    access: Access,
    sources: Sources,
    accounts: Accounts,
    rules: Rules,
    kubernetes: Option<TokenReviewer>,
}

/// What it needs besides to run.
pub struct StartParts {
    /// Holds the keys of tokens.
    pub consensus: Consensus,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Counts log-ins.
    pub metrics: Arc<Metrics>,
    /// For the worker that reads again what has changed.
    pub workers: Workers,
}

impl Prepared {
    /// Reads accounts and rules. `sources` is where `config` came from, to look there again.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub async fn load(config: &Config, sources: Sources) -> Result<Self, PrepareError> {
        let access = config.access.clone();
        let accounts = Accounts::load(&access)?;
        let rules = Rules::compile(&access.rules).map_err(PrepareError::Rules)?;
        let kubernetes = TokenReviewer::connect(&access.kubernetes).await?;
        Ok(Self { access, sources, accounts, rules, kubernetes })
    }

    /// Joins the parts, and starts the worker that reloads them.
    #[must_use]
    pub fn start(self, parts: StartParts) -> Arc<AccessControl> {
        let (users, robots) = self.accounts.count();
        tracing::info!(
            users,
            robots,
            rules = self.access.rules.len(),
            kubernetes = self.kubernetes.is_some(),
            "access control"
        );
        let authenticator = Authenticator::new(AuthenticatorParts {
            access: self.access,
            accounts: self.accounts,
            kubernetes: self.kubernetes,
            keys: Keyring::new(parts.consensus),
            clock: parts.clock,
            metrics: Arc::clone(&parts.metrics),
        });
        let control = AccessControl::new(Arc::new(authenticator), self.rules);
        let reload = Reload::new(Arc::clone(&control), self.sources, parts.metrics);
        parts.workers.spawn("access-reload", |stop| reload.run(stop));
        control
    }
}

/// Access control that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Users or robots are wrong.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// Rules are wrong; the check of the configuration says it earlier.
    #[error("{}", .0.join("; "))]
    Rules(Vec<String>),
    /// Kubernetes cannot be asked.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
}
