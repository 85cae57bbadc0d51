//! What a token says, and what it means.

use serde::{Deserialize, Serialize};
use tercet_storage::RepositoryName;

use super::{LEEWAY_SECONDS, LIFE_SECONDS_MAX, Refusal, Scene};
use crate::auth::action::Actions;
use crate::auth::principal::Principal;

/// What a token allows at most, of what the rules allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// In repositories.
    pub repositories: Vec<Grant>,
    /// Whether the list of repositories may be asked for.
    pub catalog: bool,
}

/// What a token allows in one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The repository.
    pub repository: RepositoryName,
    /// What can be done there.
    pub actions: Actions,
}

impl Grants {
    /// What can be done in a repository.
    #[must_use]
    pub fn actions_in(&self, repository: &RepositoryName) -> Actions {
        self.repositories
            .iter()
            .filter(|grant| grant.repository == *repository)
            .fold(Actions::NONE, |all, grant| all.union(grant.actions))
    }
}

/// The payload, with the names of RFC 7519 section 4.1 and of Docker's token specification. A claim
/// more, or one that is there twice, is a refusal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

impl Claims {
    pub(super) fn new(
        scene: Scene<'_>,
        seconds: u64,
        principal: &Principal,
        grants: &Grants,
    ) -> Self {
        let catalog = grants.catalog.then(|| Entry {
            kind: "registry".to_owned(),
            name: "catalog".to_owned(),
            actions: vec!["*".to_owned()],
        });
        let repositories = grants.repositories.iter().map(|grant| Entry {
            kind: "repository".to_owned(),
            name: grant.repository.to_string(),
            actions: grant.actions.iter().map(|action| action.to_string()).collect(),
        });
        Self {
            iss: scene.issuer.to_owned(),
            sub: principal.to_string(),
            aud: scene.audience.to_owned(),
            exp: scene.now_s.saturating_add(seconds),
            nbf: scene.now_s,
            iat: scene.now_s,
            jti: format!("{:032x}", rand::random::<u128>()),
            access: repositories.chain(catalog).collect(),
        }
    }

    /// Judges the times with [`LEEWAY_SECONDS`] for clocks that disagree.
    pub(super) fn check_times(&self, now_s: u64) -> Result<(), Refusal> {
        let latest = now_s.saturating_add(LEEWAY_SECONDS);
        if self.iat > latest || self.nbf > latest {
            return Err(Refusal("the token is from the future"));
        }
        if self.exp.saturating_add(LEEWAY_SECONDS) <= now_s {
            return Err(Refusal("the token has expired"));
        }
        // Whatever key it is signed with: nobody makes tokens for years here.
        match self.exp.checked_sub(self.iat) {
            Some(life) if life <= LIFE_SECONDS_MAX => Ok(()),
            _ => Err(Refusal("the token lives too long")),
        }
    }

    /// Who it is for and what it allows.
    pub(super) fn meaning(self) -> Result<(Principal, Grants), Refusal> {
        let principal = principal(&self.sub).ok_or(Refusal("the token's subject is unknown"))?;
        let mut grants = Grants::default();
        for entry in &self.access {
            match entry.kind.as_str() {
                "repository" => grants.repositories.push(grant(entry)?),
                "registry" if entry.name == "catalog" => grants.catalog = true,
                _ => return Err(Refusal("the token allows something unknown")),
            }
        }
        Ok((principal, grants))
    }
}

fn grant(entry: &Entry) -> Result<Grant, Refusal> {
    let repository = entry.name.parse().map_err(|_| Refusal("the token names no repository"))?;
    let mut actions = Actions::NONE;
    for action in &entry.actions {
        let action = action.parse().map_err(|_| Refusal("the token names no action"))?;
        actions = actions.with(action);
    }
    Ok(Grant { repository, actions })
}

/// The reverse of the principal's `Display`.
fn principal(text: &str) -> Option<Principal> {
    if text == "anonymous" {
        return Some(Principal::Anonymous);
    }
    let (kind, name) = text.split_once(':')?;
    let name = Some(name).filter(|name| !name.is_empty())?.to_owned();
    match kind {
        "user" => Some(Principal::User(name)),
        "robot" => Some(Principal::Robot(name)),
        "certificate" => Some(Principal::Certificate(name)),
        "serviceaccount" => {
            let (namespace, name) = name.split_once('/')?;
            Some(Principal::ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_principal_survives_the_way_into_a_token_and_back() {
        let text = |text: &str| text.to_owned();
        for whose in [
            Principal::Anonymous,
            Principal::User(text("alice")),
            Principal::User(text("robot:ci")),
            Principal::User(text("a/b:c")),
            Principal::Robot(text("for/ever")),
            Principal::Certificate(text("CN with spaces, and: signs")),
            Principal::ServiceAccount { namespace: text("ci"), name: text("builder") },
        ] {
            assert_eq!(principal(&whose.to_string()), Some(whose));
        }
        for wrong in ["", "alice", "user:", "admin:x", "serviceaccount:builder", "Anonymous"] {
            assert_eq!(principal(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn several_grants_for_one_repository_add_up() {
        let grant = |name: &str, action: &str| Grant {
            repository: name.parse().unwrap(),
            actions: Actions::NONE.with(action.parse().unwrap()),
        };
        let grants = Grants {
            repositories: vec![grant("a", "pull"), grant("b", "push"), grant("a", "delete")],
            catalog: false,
        };
        let names: Vec<_> = grants.actions_in(&"a".parse().unwrap()).iter().collect();
        assert_eq!(format!("{names:?}"), "[Pull, Delete]");
        assert!(grants.actions_in(&"c".parse().unwrap()).is_empty());
    }
}
