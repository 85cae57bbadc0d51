//! The `scope` of Docker's token specification: `repository:NAME:pull,push`, `registry:catalog:*`.

use tercet_storage::RepositoryName;

use crate::auth::{Action, Actions, Grant, Grants};

/// Most scopes of one request, after splitting those that came in one parameter.
pub(super) const SCOPES_MAX: usize = 100;

/// What a client asks a token for. What is not understood is left out: the token then does not allow
/// it, which is also what the specification wants for what is not permitted.
///
/// `None` if there are more than [`SCOPES_MAX`].
pub(super) fn parse<'a>(parameters: impl Iterator<Item = &'a str>) -> Option<Grants> {
    let mut asked = Grants::default();
    // Several scopes in one parameter have a space between them. In a query Go writes it as `+`, which
    // is in no name.
    let scopes = parameters.flat_map(|parameter| parameter.split([' ', '+']));
    for (count, scope) in scopes.filter(|scope| !scope.is_empty()).enumerate() {
        if count == SCOPES_MAX {
            return None;
        }
        add(&mut asked, scope);
    }
    Some(asked)
}

fn add(asked: &mut Grants, scope: &str) {
    let Some((kind, rest)) = scope.split_once(':') else { return };
    // A name may begin with a host and its port, so the actions are behind the last colon.
    let Some((name, actions)) = rest.rsplit_once(':') else { return };
    // `repository(plugin)`: the class says what is in it, and nothing about rights.
    let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
    match kind {
        "registry" if name == "catalog" => asked.catalog = true,
        "repository" => {
            let Ok(repository) = name.parse::<RepositoryName>() else { return };
            let actions = actions.split(',').fold(Actions::NONE, |all, word| match word {
                "*" => Actions::ALL,
                word => word.parse::<Action>().map_or(all, |action| all.with(action)),
            });
            let there = asked.repositories.iter_mut().find(|grant| grant.repository == repository);
            match there {
                Some(grant) => grant.actions = grant.actions.union(actions),
                None => asked.repositories.push(Grant { repository, actions }),
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn shown(scopes: &[&str]) -> String {
        let asked = parse(scopes.iter().copied()).unwrap();
        let mut out: Vec<String> = asked
            .repositories
            .iter()
            .map(|grant| {
                let actions: Vec<_> = grant.actions.iter().map(Action::as_str).collect();
                format!("{}={}", grant.repository, actions.join(","))
            })
            .collect();
        if asked.catalog {
            out.push("catalog".to_owned());
        }
        out.join(" ")
    }

    #[test]
    fn what_clients_ask() {
        assert_eq!(shown(&["repository:team/app:pull,push"]), "team/app=pull,push");
        assert_eq!(shown(&["repository:a:push,pull"]), "a=pull,push");
        assert_eq!(shown(&["repository(plugin):a:pull"]), "a=pull");
        assert_eq!(shown(&["repository:a:*", "registry:catalog:*"]), "a=pull,push,delete catalog");
        assert_eq!(shown(&["repository:a:pull repository:b:push"]), "a=pull b=push");
        assert_eq!(shown(&["repository:a:pull+repository:b:push"]), "a=pull b=push");
        assert_eq!(shown(&["repository:a:pull", "repository:a:delete"]), "a=pull,delete");
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&[""]), "");
    }

    #[test]
    fn what_means_nothing_asks_for_nothing() {
        for junk in [
            "repository",
            "repository:a",
            "repository:../etc:pull",
            "repository:UPPER:pull",
            "repository:localhost:5000/a:pull",
            "registry:other:*",
            "artifact:a:pull",
            ":::",
            "repository::pull",
        ] {
            assert_eq!(shown(&[junk]), "", "{junk}");
        }
        assert_eq!(shown(&["repository:a:admin,,pull"]), "a=pull");
    }

    #[test]
    fn too_many_are_none() {
        let scope = |count| vec!["repository:a:pull"; count].join(" ");
        assert!(parse([scope(SCOPES_MAX).as_str()].into_iter()).is_some());
        assert!(parse([scope(SCOPES_MAX + 1).as_str()].into_iter()).is_none());
        assert!(parse(vec!["repository:a:pull"; SCOPES_MAX + 1].into_iter()).is_none());
    }
}
