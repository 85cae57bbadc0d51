//! In front of every route: who asks, whether they may, and the line in the audit log.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method};
use axum::response::Response;

use super::challenge::{TokenError, challenge};
use super::error::ApiError;
use super::header::{self, CONTENT_DIGEST};
use super::need::{Demand, Effect, Need, described, need, scope};
use super::query::Query;
use super::route::Route;
use crate::auth::{
    Action, AuthenticationError, Decision, Principal, Pullable, RequestFacts, Rights, audit,
    is_opened_by,
};
use crate::core::Core;
use crate::peer::Forwarded;
use crate::server::{ClientCertificate, RemoteAddress};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request as the guard sees it.
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    pub(super) query: &'a Query,
    pub(super) parts: &'a Parts,
}

/// A request that was let through.
pub(super) struct Admitted {
    /// What it may do beyond what its route needs: read the source of a mount, list repositories.
    pub(super) rights: Rights,
    /// Of a write. Finish it when the outcome is known.
    entry: Option<audit::Entry>,
}

impl Admitted {
    /// Rights for the handler, and the audit line for when it is done.
    pub(super) fn into_parts(self) -> (Rights, Option<audit::Entry>) {
        (self.rights, self.entry)
    }
}

/// Lets a request through, or says why not.
///
/// # Errors
/// `401` with a challenge, `403`, `429`, `503` when nobody can tell who it is; `404` for an upload session
/// of somebody else; `405`.
pub(super) async fn check(core: &Arc<Core>, asked: Asked<'_>) -> Result<Admitted, ApiError> {
    let Asked { route, query, parts } = &asked;
    let Some(need) = need(route, &parts.method, query) else {
        return Err(ApiError::method_not_allowed(route.methods()));
    };
    // Replicas pass on requests on sessions and nothing else. The one that passes it on has judged it, and
    // writes the audit line. Only the peer listener, behind mutual TLS, makes this extension.
    if matches!(need.demand, Demand::OnSession(..)) && parts.extensions.get::<Forwarded>().is_some()
    {
        return Ok(Admitted { rights: Rights::of_replica(), entry: None });
    }
    let rights = rights(core, &asked, &need).await?;
    judge(core, &asked, &need, &rights)?;
    let entry = (need.effect == Effect::Write)
        .then(|| audit::Entry::new(rights.principal().clone(), asked.subject(need.event)));
    Ok(Admitted { rights, entry })
}

/// Writes the audit line of a write.
pub(super) fn finish(entry: Option<audit::Entry>, outcome: &Result<Response, ApiError>) {
    let Some(entry) = entry else { return };
    match outcome {
        Ok(response) => {
            let digest = header::text(response.headers(), &CONTENT_DIGEST);
            entry.finish(response.status().as_u16(), digest);
        }
        Err(error) => entry.finish(error.status.as_u16(), None),
    }
}

/// What is known about the sender of a request before anything is believed.
pub(super) fn facts(parts: &Parts) -> RequestFacts<'_> {
    let certificate = parts.extensions.get::<ClientCertificate>();
    RequestFacts {
        headers: &parts.headers,
        remote: remote(parts).map(|remote| remote.ip()),
        client_certificate: certificate.map(|certificate| certificate.0.as_str()),
    }
}

fn remote(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<RemoteAddress>().map(|remote| remote.0)
}

async fn rights(core: &Arc<Core>, asked: &Asked<'_>, need: &Need<'_>) -> Result<Rights, ApiError> {
    let access = &core.access;
    let rules = access.rules.load_full();
    // An open registry that nobody can log in to has no use for credentials, and clients send some that
    // were meant for another one.
    let no_use = rules.is_open() && !access.authenticator.can_log_in();
    if no_use || need.demand == Demand::OwnJudgement {
        return Ok(Rights::anonymous(rules));
    }
    match access.authenticator.authenticate(&facts(asked.parts)).await {
        Ok(authenticated) => Ok(Rights::new(authenticated, rules)),
        Err(error) => {
            let scope = scope(need, asked.query);
            Err(not_authenticated(core, asked.parts, &asked.subject(need.event), scope, error))
        }
    }
}

/// The answer to credentials that are not good, with its line in the audit log.
pub(super) fn not_authenticated(
    core: &Core,
    parts: &Parts,
    subject: &audit::Subject,
    scope: Option<String>,
    error: AuthenticationError,
) -> ApiError {
    let (refused, reason) = match error {
        AuthenticationError::Refused { reason } => {
            let error = has_token(parts).then_some(TokenError::InvalidToken);
            let challenge = challenge_of(core, parts, scope.as_deref(), error);
            // The reason is for the log: it would help somebody who guesses.
            (ApiError::unauthorized("the credentials are not valid", &challenge), reason.to_owned())
        }
        AuthenticationError::Throttled { retry_after } => {
            (ApiError::throttled(retry_after), "too many failed log-ins".to_owned())
        }
        AuthenticationError::Unavailable(reason) => (ApiError::unavailable(reason.clone()), reason),
    };
    audit::denied(None, subject, refused.status.as_u16(), &reason);
    refused
}

fn judge(core: &Core, asked: &Asked<'_>, need: &Need<'_>, rights: &Rights) -> Result<(), ApiError> {
    let decision = match need.demand {
        Demand::OwnJudgement => Decision::Allowed,
        Demand::LogIn => log_in(core, rights),
        Demand::Catalog => catalog(rights),
        Demand::InRepository(repository, action) => rights.decide(repository, action),
        Demand::OnSession(repository, id) => {
            let decision = rights.decide(repository, Action::Push);
            let open = core.access.rules.load().is_open();
            // Somebody else's session is one that does not exist.
            if decision == Decision::Allowed && !open && !is_opened_by(id, rights.principal()) {
                let refused = ApiError::upload_unknown(id);
                let reason = "the session is not theirs";
                let subject = asked.subject(need.event);
                audit::denied(Some(rights.principal()), &subject, refused.status.as_u16(), reason);
                return Err(refused);
            }
            decision
        }
    };
    let principal = rights.principal();
    let can_log_in = core.access.authenticator.can_log_in();
    let token = rights.grants().is_some();
    let (refused, reason) = match decision {
        Decision::Allowed => return Ok(()),
        Decision::Denied if *principal != Principal::Anonymous || !can_log_in => {
            // The same words whether the repository exists or not.
            let what = described(&need.demand);
            (ApiError::denied(format!("no rule allows {principal} to {what}")), "no rule allows it")
        }
        Decision::Denied | Decision::OutOfScope => {
            let error = token.then_some(TokenError::InsufficientScope);
            let scope = scope(need, asked.query);
            let challenge = challenge_of(core, asked.parts, scope.as_deref(), error);
            let (message, reason) = if token {
                ("the token's scope does not cover this", "the token's scope does not cover it")
            } else {
                ("authentication required", "no credentials")
            };
            (ApiError::unauthorized(message, &challenge), reason)
        }
    };
    // To be asked for credentials is how every log-in begins, and no denial.
    if refused.status.as_u16() != 401 || asked.parts.headers.contains_key(AUTHORIZATION) {
        let subject = asked.subject(need.event);
        audit::denied(Some(principal), &subject, refused.status.as_u16(), reason);
    }
    Err(refused)
}

/// Clients ask `/v2/` whether they have to log in, and learn from the challenge where. One that asked for
/// a token without a name has learned it.
fn log_in(core: &Core, rights: &Rights) -> Decision {
    let named = *rights.principal() != Principal::Anonymous || rights.grants().is_some();
    if named || !core.access.authenticator.can_log_in() {
        Decision::Allowed
    } else {
        Decision::Denied
    }
}

/// To somebody without a name, a list with nothing in it would say that the registry is empty.
fn catalog(rights: &Rights) -> Decision {
    let nobody = *rights.principal() == Principal::Anonymous;
    if nobody && rights.visible() == Pullable::Nothing {
        return Decision::Denied;
    }
    match rights.grants() {
        Some(grants) if !grants.catalog => Decision::OutOfScope,
        _ => Decision::Allowed,
    }
}

fn challenge_of(
    core: &Core,
    parts: &Parts,
    scope: Option<&str>,
    error: Option<TokenError>,
) -> String {
    challenge(parts, &core.access.authenticator.access(), scope, error)
}

fn has_token(parts: &Parts) -> bool {
    let value = parts.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    value.and_then(|value| value.get(..7)).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer "))
}

impl Asked<'_> {
    /// What the audit log says about the request.
    fn subject(&self, event: &'static str) -> audit::Subject {
        let (repository, reference) = match self.route {
            Route::Base | Route::Token | Route::Catalog => (None, None),
            Route::Tags(name) => (Some(name), None),
            Route::Uploads(name) => {
                let digest = self.query.get("mount").or_else(|| self.query.get("digest"));
                let from = self.query.get("from").filter(|_| self.query.get("mount").is_some());
                let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
                (Some(name), digest.map(|digest| format!("{digest}{from}")))
            }
            Route::Blob(name, digest) | Route::Referrers(name, digest) => {
                (Some(name), Some(digest.to_string()))
            }
            Route::Manifest(name, reference) => {
                let mut reference = reference.to_string();
                if self.parts.method == Method::PUT {
                    tags_too(&mut reference, self.query.all("tag"));
                }
                (Some(name), Some(reference))
            }
            Route::Upload(name, id) => (Some(name), Some(id.to_string())),
        };
        audit::Subject {
            repository: repository.map(ToString::to_string),
            reference,
            ..subject_of(self.parts, event)
        }
    }
}

/// Most tags of one push that a line names; the log cuts what is still too long.
const TAGS_NAMED_MAX: usize = 10;

/// The tags that a push sets besides its reference.
fn tags_too<'a>(reference: &mut String, mut tags: impl Iterator<Item = &'a str>) {
    for tag in tags.by_ref().take(TAGS_NAMED_MAX) {
        reference.push_str(" tag ");
        reference.push_str(tag);
    }
    match tags.count() {
        0 => {}
        more => reference.push_str(&format!(" and {more} more")),
    }
}

/// The same for a request whose route is not known or says nothing.
pub(super) fn subject_of(parts: &Parts, event: &'static str) -> audit::Subject {
    audit::Subject {
        remote: remote(parts),
        action: event,
        request_id: header::text(&parts.headers, &REQUEST_ID).map(ToOwned::to_owned),
        ..audit::Subject::default()
    }
}
