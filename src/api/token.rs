//! `/token`: credentials against a short-lived token. GET as Docker's token authentication describes it,
//! POST as its OAuth2 form.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Response;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::body;
use super::error::{ApiError, OciCode};
use super::guard;
use super::query::Query;
use super::route::Shown;
use super::scope;
use crate::auth::{
    AuthenticationError, Grant, Grants, IssueError, Principal, Pullable, RequestFacts, audit,
};
use crate::core::Core;

/// Bytes of the largest form. A Kubernetes token in it has to fit.
const FORM_BYTES_MAX: usize = 32 * 1024;
/// Says to a client whose credentials are wrong that it needs a name and a password. Our own challenge,
/// `Bearer`, would send it here again.
const BASIC_CHALLENGE: &str = "Basic realm=\"tercet\", charset=\"UTF-8\"";

/// Answers every method.
pub(super) async fn answer(
    core: &Arc<Core>,
    query: &Query,
    request: Request,
) -> Result<Response, ApiError> {
    match *request.method() {
        Method::GET | Method::HEAD => by_header(core, query, &request.into_parts().0).await,
        Method::POST => by_form(core, request).await,
        _ => Err(ApiError::method_not_allowed("GET, HEAD, POST")),
    }
}

async fn by_header(core: &Arc<Core>, query: &Query, parts: &Parts) -> Result<Response, ApiError> {
    let asked = asked(core, query)?;
    let access = &core.access;
    // As everywhere: an open registry that nobody can log in to has no use for credentials.
    if access.rules.load().is_open() && !access.authenticator.can_log_in() {
        return issue(core, &Principal::Anonymous, asked);
    }
    let facts = guard::facts(parts);
    let authenticated = match access.authenticator.authenticate(&facts).await {
        // A token that allows little must not become one that allows much.
        Ok(authenticated) if authenticated.grants.is_some() => {
            Err(AuthenticationError::Refused { reason: "a token does not get another token" })
        }
        authenticated => authenticated,
    };
    match authenticated {
        Ok(authenticated) => issue(core, &authenticated.principal, asked),
        Err(error) => Err(refused(&guard::subject_of(parts, "token"), error)),
    }
}

async fn by_form(core: &Arc<Core>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let subject = guard::subject_of(&parts, "token");
    let RequestFacts { remote, .. } = guard::facts(&parts);
    let form = match body::read(&parts.headers, body, FORM_BYTES_MAX).await {
        Err(error) if error.status == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("a form of more than {FORM_BYTES_MAX} bytes is refused");
            return Err(ApiError::new(error.status, OciCode::SizeInvalid, message));
        }
        form => form?,
    };
    // In a form, unlike in our queries, `+` is a space: passwords have some.
    let Ok(text) = String::from_utf8(form).map(|text| text.replace('+', "%20")) else {
        return Ok(oauth_error("invalid_request", "the form is not text"));
    };
    let form = Query::parse(Some(&text))?;
    match form.get("grant_type") {
        Some("password") => {}
        Some(_) => {
            let message = "only grant_type=password is offered: tokens are short-lived, and a new one \
                           needs the credentials again";
            return Ok(oauth_error("unsupported_grant_type", message));
        }
        None => return Ok(oauth_error("invalid_request", "grant_type is missing")),
    }
    let asked = asked(core, &form)?;
    let (Some(user), Some(password)) = (form.get("username"), form.get("password")) else {
        return Ok(oauth_error("invalid_request", "username and password are needed"));
    };
    let access = &core.access;
    if access.rules.load().is_open() && !access.authenticator.can_log_in() {
        return issue(core, &Principal::Anonymous, asked);
    }
    match access.authenticator.log_in(user, password, remote).await {
        Ok(principal) => issue(core, &principal, asked),
        Err(error) => Err(refused(&subject, error)),
    }
}

/// What a token is asked for, after a look at whether it is ours to give.
fn asked(core: &Core, parameters: &Query) -> Result<Grants, ApiError> {
    let service = &core.access.authenticator.access().service;
    if let Some(other) = parameters.get("service")
        && !other.is_empty()
        && other != service
    {
        let message = format!(
            "tokens for the service {} are not given here, only for {service}",
            Shown(other)
        );
        return Err(ApiError::invalid(OciCode::Unsupported, message));
    }
    scope::parse(parameters.all("scope")).ok_or_else(|| {
        let message = format!("more than {} scopes; ask for fewer", scope::SCOPES_MAX);
        ApiError::invalid(OciCode::Unsupported, message)
    })
}

/// A token for what was asked for and the rules allow. Nothing of it is no error: the client finds out
/// where it uses the token.
fn issue(core: &Core, principal: &Principal, asked: Grants) -> Result<Response, ApiError> {
    let rules = core.access.rules.load();
    let repositories = asked.repositories.into_iter().filter_map(|grant| {
        let allowed = rules.allowed(principal, &grant.repository);
        let actions = grant.actions.intersection(allowed);
        (!actions.is_empty()).then_some(Grant { actions, ..grant })
    });
    // The list of repositories shows what one may pull. To somebody without a name who may pull nothing,
    // an empty list would say that the registry is empty, when it should say to log in.
    let lists =
        *principal != Principal::Anonymous || rules.pullable(principal) != Pullable::Nothing;
    let grants = Grants { repositories: repositories.collect(), catalog: asked.catalog && lists };
    let issued =
        core.access.authenticator.issue(principal, &grants).map_err(|error| match error {
            IssueError::TooLong => ApiError::invalid(OciCode::Unsupported, error.to_string()),
            IssueError::Unavailable(reason) => ApiError::unavailable(reason),
        })?;
    let at = i64::try_from(issued.issued_at_s).ok().and_then(|at| Timestamp::from_second(at).ok());
    Ok(json_response(
        StatusCode::OK,
        &json!({
            "token": issued.token,
            "access_token": issued.token,
            "expires_in": issued.seconds,
            "issued_at": at.map(|at| at.to_string()),
        }),
    ))
}

fn refused(subject: &audit::Subject, error: AuthenticationError) -> ApiError {
    let (answer, reason) = match error {
        AuthenticationError::Refused { reason } => {
            // The reason is for the log: it would help somebody who guesses.
            let answer = ApiError::unauthorized("authentication failed", BASIC_CHALLENGE);
            (answer, reason.to_owned())
        }
        AuthenticationError::Throttled { retry_after } => {
            (ApiError::throttled(retry_after), "too many failed log-ins".to_owned())
        }
        AuthenticationError::Unavailable(reason) => (ApiError::unavailable(reason.clone()), reason),
    };
    audit::denied(None, subject, answer.status.as_u16(), &reason);
    answer
}

/// RFC 6749 section 5.2.
fn oauth_error(code: &'static str, description: &str) -> Response {
    json_response(
        StatusCode::BAD_REQUEST,
        &json!({ "error": code, "error_description": description }),
    )
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
