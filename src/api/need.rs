//! What each route needs of the one who asks.

use axum::http::Method;
use tercet_storage::{Reference, RepositoryName, UploadId};

use super::query::Query;
use super::route::{self, Route};
use crate::auth::Action;

/// What a token must have been asked for to list repositories.
const CATALOG_SCOPE: &str = "registry:catalog:*";

/// What a route needs with one method.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Need<'a> {
    /// Its name in the audit log.
    pub(super) event: &'static str,
    pub(super) effect: Effect,
    pub(super) demand: Demand<'a>,
}

/// Whether a request that is let through is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Read,
    Write,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Demand<'a> {
    /// Credentials, where somebody can have any.
    LogIn,
    /// Nothing here: the route judges credentials itself, because that is what it is for.
    OwnJudgement,
    /// To see some repositories; the route leaves out the others.
    Catalog,
    /// One action in one repository.
    InRepository(&'a RepositoryName, Action),
    /// To push to the repository, and to have opened this session.
    OnSession(&'a RepositoryName, &'a UploadId),
}

/// What a route needs, the one place that says it. Every route is named, so that a new one does not
/// compile before somebody has decided; a method without a line is answered with `405`.
pub(super) fn need<'a>(route: &'a Route, method: &Method, query: &Query) -> Option<Need<'a>> {
    let read = |event, demand| Some(Need { event, effect: Effect::Read, demand });
    let write = |event, demand| Some(Need { event, effect: Effect::Write, demand });
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route {
        Route::Base if reads => read("login", Demand::LogIn),
        Route::Base => None,
        Route::Token if reads || *method == Method::POST => read("token", Demand::OwnJudgement),
        Route::Token => None,
        Route::Catalog if reads => read("catalog", Demand::Catalog),
        Route::Catalog => None,
        Route::Tags(name) | Route::Referrers(name, _) => {
            let event =
                if matches!(route, Route::Tags(_)) { "tags.list" } else { "referrers.list" };
            if reads { read(event, Demand::InRepository(name, Action::Pull)) } else { None }
        }
        Route::Blob(name, _) => match *method {
            _ if reads => read("blob.get", Demand::InRepository(name, Action::Pull)),
            Method::DELETE => write("blob.delete", Demand::InRepository(name, Action::Delete)),
            _ => None,
        },
        Route::Manifest(name, reference) => match (reference, method.clone()) {
            _ if reads => read("manifest.get", Demand::InRepository(name, Action::Pull)),
            (_, Method::PUT) => write("manifest.put", Demand::InRepository(name, Action::Push)),
            (Reference::Tag(_), Method::DELETE) => {
                write("tag.delete", Demand::InRepository(name, Action::Delete))
            }
            (Reference::Digest(_), Method::DELETE) => {
                write("manifest.delete", Demand::InRepository(name, Action::Delete))
            }
            _ => None,
        },
        Route::Uploads(name) => {
            let event = match (query.get("mount"), query.get("digest")) {
                (Some(_), _) => "blob.mount",
                (None, Some(_)) => "blob.put",
                (None, None) => "upload.open",
            };
            let demand = Demand::InRepository(name, Action::Push);
            if *method == Method::POST { write(event, demand) } else { None }
        }
        Route::Upload(name, id) => {
            let demand = Demand::OnSession(name, id);
            match *method {
                _ if reads => read("upload.get", demand),
                Method::PATCH => write("upload.append", demand),
                Method::PUT => write("upload.close", demand),
                Method::DELETE => write("upload.cancel", demand),
                _ => None,
            }
        }
    }
}

/// What somebody is not allowed to do, in words.
pub(super) fn described(demand: &Demand<'_>) -> String {
    match demand {
        Demand::LogIn | Demand::OwnJudgement => "log in".to_owned(),
        Demand::Catalog => "list repositories".to_owned(),
        Demand::InRepository(repository, Action::Pull) => format!("pull from {repository}"),
        Demand::InRepository(repository, Action::Push) | Demand::OnSession(repository, _) => {
            format!("push to {repository}")
        }
        Demand::InRepository(repository, Action::Delete) => format!("delete from {repository}"),
    }
}

/// What a client has to ask a token for. Who pushes or deletes also reads, so one token does for both.
pub(super) fn scope(need: &Need<'_>, query: &Query) -> Option<String> {
    let (repository, actions) = match need.demand {
        Demand::LogIn | Demand::OwnJudgement => return None,
        Demand::Catalog => return Some(CATALOG_SCOPE.to_owned()),
        Demand::InRepository(repository, Action::Pull) => (repository, "pull"),
        Demand::InRepository(repository, Action::Push) | Demand::OnSession(repository, _) => {
            (repository, "pull,push")
        }
        Demand::InRepository(repository, Action::Delete) => (repository, "pull,delete"),
    };
    let mut scope = format!("repository:{repository}:{actions}");
    if need.event == "blob.mount"
        && let Some(Ok(from)) = query.get("from").map(route::repository)
    {
        scope.push_str(&format!(" repository:{from}:pull"));
    }
    Some(scope)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const METHODS: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];

    fn routes() -> Vec<Route> {
        let name: RepositoryName = "a/b".parse().unwrap();
        let digest: tercet_storage::Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let routes = vec![
            Route::Base,
            Route::Token,
            Route::Catalog,
            Route::Tags(name.clone()),
            Route::Referrers(name.clone(), digest.clone()),
            Route::Blob(name.clone(), digest.clone()),
            Route::Manifest(name.clone(), Reference::Digest(digest)),
            Route::Manifest(name.clone(), "v1".parse().unwrap()),
            Route::Uploads(name.clone()),
            Route::Upload(name, UploadId::new(1)),
        ];
        for route in &routes {
            // A route that is missing above is missing here, and then this does not compile.
            match route {
                Route::Base | Route::Token | Route::Catalog | Route::Tags(_) => {}
                Route::Referrers(..) | Route::Blob(..) | Route::Manifest(..) => {}
                Route::Uploads(_) | Route::Upload(..) => {}
            }
        }
        routes
    }

    /// CVE-2026-24124: routes that were added later had no check in front of them.
    #[test]
    fn every_route_has_a_guard() {
        let query = Query::default();
        for route in routes() {
            let answered: Vec<String> = METHODS
                .iter()
                .filter(|method| need(&route, method, &query).is_some())
                .map(ToString::to_string)
                .collect();
            let mut allowed: Vec<&str> = route.methods().split(", ").collect();
            allowed.sort_unstable_by_key(|method| METHODS.iter().position(|m| m == method));
            assert_eq!(answered, allowed, "{route:?}");
        }
    }

    #[test]
    fn reads_need_pull_and_writes_need_push_or_delete() {
        let query = Query::default();
        for route in routes() {
            for method in METHODS {
                let Some(need) = need(&route, &method, &query) else { continue };
                let reads = matches!(method, Method::GET | Method::HEAD);
                match need.demand {
                    Demand::LogIn => assert_eq!(route, Route::Base),
                    Demand::OwnJudgement => assert_eq!(route, Route::Token),
                    Demand::Catalog => assert_eq!(route, Route::Catalog),
                    Demand::OnSession(..) => assert!(matches!(route, Route::Upload(..))),
                    Demand::InRepository(_, Action::Pull) => assert!(reads),
                    Demand::InRepository(_, Action::Push) => {
                        assert!(method == Method::PUT || method == Method::POST);
                    }
                    Demand::InRepository(_, Action::Delete) => assert_eq!(method, Method::DELETE),
                }
                let writes = !reads && route != Route::Token;
                assert_eq!(need.effect == Effect::Write, writes, "{method} {route:?}");
            }
        }
    }

    #[test]
    fn a_mount_asks_for_both_repositories() {
        let route = Route::Uploads("team/app".parse().unwrap());
        let query = Query::parse(Some("mount=sha256:ab&from=library/base")).unwrap();
        let need = need(&route, &Method::POST, &query).unwrap();
        assert_eq!(
            scope(&need, &query).unwrap(),
            "repository:team/app:pull,push repository:library/base:pull"
        );
    }
}
