//! What one request may do: what the rules allow its sender, narrowed by the token it came with.

use std::sync::Arc;

use tercet_storage::RepositoryName;

use super::action::{Action, Actions};
use super::authenticator::Authenticated;
use super::principal::Principal;
use super::rules::{Pullable, Rules};
use super::token::Grants;

/// What one request may do. It holds the rules of the moment in which the request came: a token says what
/// its holder may do *at most*, so a right that was taken away is gone for tokens that were issued before.
#[derive(Debug, Clone)]
pub struct Rights {
    principal: Principal,
    grants: Option<Grants>,
    rules: Arc<Rules>,
}

/// Whether something is allowed, and if not, what would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Allowed,
    /// The rules allow it, the token does not: a new one would.
    OutOfScope,
    /// No rule allows it.
    Denied,
}

impl Rights {
    /// The rights of somebody whose credentials were checked.
    #[must_use]
    pub fn new(authenticated: Authenticated, rules: Arc<Rules>) -> Self {
        let Authenticated { principal, grants } = authenticated;
        Self { principal, grants, rules }
    }

    /// The rights of somebody without a name.
    #[must_use]
    pub fn anonymous(rules: Arc<Rules>) -> Self {
        Self { principal: Principal::Anonymous, grants: None, rules }
    }

    /// Every right: for a request that another replica has judged before it passed it on.
    #[must_use]
    pub fn of_replica() -> Self {
        Self::anonymous(Arc::default())
    }

    /// Who asks.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether the request came with a token.
    #[must_use]
    pub fn grants(&self) -> Option<&Grants> {
        self.grants.as_ref()
    }

    /// Whether one action is allowed in one repository.
    #[must_use]
    pub fn decide(&self, repository: &RepositoryName, action: Action) -> Decision {
        if !self.rules.allowed(&self.principal, repository).contains(action) {
            Decision::Denied
        } else if !self.granted(repository).contains(action) {
            Decision::OutOfScope
        } else {
            Decision::Allowed
        }
    }

    /// Whether the repository may be read.
    #[must_use]
    pub fn may_pull(&self, repository: &RepositoryName) -> bool {
        self.decide(repository, Action::Pull) == Decision::Allowed
    }

    /// Whether the repository may be named to the one who asks. A token that may list the catalogue names
    /// no repositories, so only the rules count.
    #[must_use]
    pub fn may_see(&self, repository: &RepositoryName) -> bool {
        self.rules.allowed(&self.principal, repository).contains(Action::Pull)
    }

    /// Where in the list of repositories those can be that [`Self::may_see`].
    #[must_use]
    pub fn visible(&self) -> Pullable {
        self.rules.pullable(&self.principal)
    }

    fn granted(&self, repository: &RepositoryName) -> Actions {
        self.grants.as_ref().map_or(Actions::ALL, |grants| grants.actions_in(repository))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::auth::Grant;
    use crate::config::AccessRule;

    fn rules(subject: &str, repositories: &str, action: &str) -> Arc<Rules> {
        let rule = AccessRule {
            subject: subject.parse().unwrap(),
            repositories: vec![repositories.parse().unwrap()],
            actions: vec![action.parse().unwrap()],
        };
        Arc::new(Rules::compile(&[rule]).unwrap())
    }

    fn token(repository: &str, actions: Actions) -> Authenticated {
        let grant = Grant { repository: repository.parse().unwrap(), actions };
        Authenticated {
            principal: Principal::User("alice".into()),
            grants: Some(Grants { repositories: vec![grant], catalog: false }),
        }
    }

    #[test]
    fn a_token_is_narrowed_by_the_rules_of_today() {
        let (app, other) = ("team/app".parse().unwrap(), "team/other".parse().unwrap());
        let issued = token("team/app", Actions::NONE.with(Action::Pull).with(Action::Push));

        let rights = Rights::new(issued.clone(), rules("user:alice", "team/**", "*"));
        assert_eq!(rights.decide(&app, Action::Push), Decision::Allowed);
        assert_eq!(rights.decide(&app, Action::Delete), Decision::OutOfScope);
        assert_eq!(rights.decide(&other, Action::Pull), Decision::OutOfScope);
        assert!(rights.may_see(&other) && !rights.may_pull(&other));

        let rights = Rights::new(issued.clone(), rules("user:alice", "team/**", "pull"));
        assert_eq!(rights.decide(&app, Action::Pull), Decision::Allowed);
        assert_eq!(rights.decide(&app, Action::Push), Decision::Denied);

        let rights = Rights::new(issued, rules("user:bob", "**", "*"));
        for action in Action::ALL {
            assert_eq!(rights.decide(&app, action), Decision::Denied);
        }
    }

    #[test]
    fn a_replica_may_do_everything() {
        let rights = Rights::of_replica();
        for action in Action::ALL {
            assert_eq!(rights.decide(&"a".parse().unwrap(), action), Decision::Allowed);
        }
    }
}
