//! The OCI distribution API: translates HTTP into use cases of [`crate::registry`] and back.

mod blobs;
mod body;
mod challenge;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod header;
mod host;
mod keeper;
mod leftover;
mod lists;
mod manifests;
mod multipart;
mod namespace;
mod need;
mod owner;
mod pagination;
mod percent;
mod query;
mod range;
mod referrers;
mod route;
mod scope;
mod token;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::auth::Rights;
use crate::core::Core;
use crate::peer::Forwarded;
use error::{ApiError, OciCode};
use guard::Asked;
use leftover::Leftover;
use namespace::Namespace;
use query::Query;
use route::Route;

/// The router of the registry listener. The peer listener hands forwarded requests to the same one,
/// with a [`Forwarded`] extension on them.
pub fn router(core: Arc<Core>) -> Router {
    // Repository names hold slashes, so the paths are no pattern that a router could match.
    Router::new().fallback(answer).with_state(core)
}

async fn answer(State(core): State<Arc<Core>>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let (request, leftover) = Leftover::of(request);
    let mut response = match dispatch(&core, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    leftover.discard().await;
    if head {
        without_body(&mut response);
    }
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(header::API_VERSION, version);
    response
}

async fn dispatch(core: &Arc<Core>, request: Request) -> Result<Response, ApiError> {
    if let Some(id) = owner::status_path(request.uri().path())
        && request.extensions().get::<Forwarded>().is_some()
    {
        return owner::answer_status(core, id).await;
    }
    refuse_ambiguous(&request)?;
    let route = Route::parse(request.uri().path()).map_err(|refused| match *request.method() {
        Method::GET | Method::HEAD => refused.for_a_read(),
        _ => refused,
    })?;
    let query = Query::parse(request.uri().query())?;
    refuse_encodings(&request)?;
    let namespace = Namespace::of(request.method(), &query)?;
    let mut response = match guarded(core, route, &query, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    if let Some(namespace) = namespace {
        namespace.mark(&mut response);
    }
    Ok(response)
}

/// Lets a request through to its handler if its sender may, and writes down what came of a write.
async fn guarded(
    core: &Arc<Core>,
    route: Route,
    query: &Query,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let asked = Asked { route: &route, query, parts: &parts };
    let (rights, entry) = guard::check(core, asked).await?.into_parts();
    let request = Request::from_parts(parts, body);
    let outcome = serve(core, &rights, route, query, request).await;
    guard::finish(entry, &outcome);
    outcome
}

async fn serve(
    core: &Arc<Core>,
    rights: &Rights,
    route: Route,
    query: &Query,
    request: Request,
) -> Result<Response, ApiError> {
    let method = request.method().clone();
    let allow = route.methods();
    match (route, method.clone()) {
        (Route::Base, Method::GET | Method::HEAD) => Ok(base()),
        (Route::Token, _) => token::answer(core, query, request).await,
        (Route::Catalog, Method::GET | Method::HEAD) => {
            lists::repositories(core, rights, query).await
        }
        (Route::Tags(name), Method::GET | Method::HEAD) => lists::tags(core, &name, query).await,
        (Route::Referrers(name, digest), Method::GET | Method::HEAD) => {
            referrers::list(core, &name, &digest, query).await
        }
        (Route::Blob(name, digest), Method::GET | Method::HEAD) => {
            blobs::get(core, &name, &digest, &method, request.headers()).await
        }
        (Route::Blob(name, digest), Method::DELETE) => blobs::delete(core, &name, &digest).await,
        (Route::Manifest(name, reference), Method::GET | Method::HEAD) => {
            manifests::get(core, &name, &reference, request.headers()).await
        }
        (Route::Manifest(name, reference), Method::PUT) => {
            manifests::put(core, name, reference, query, request).await
        }
        (Route::Manifest(name, reference), Method::DELETE) => {
            manifests::delete(core, &name, &reference, request.headers()).await
        }
        (Route::Uploads(name), Method::POST) => {
            uploads::begin(core, rights, &name, query, request).await
        }
        (
            Route::Upload(name, id),
            Method::GET | Method::HEAD | Method::PATCH | Method::PUT | Method::DELETE,
        ) => uploads::on_session(core, &name, &id, query, request).await,
        _ => Err(ApiError::method_not_allowed(allow)),
    }
}

/// A request without one host is refused and its connection closed: whoever stands in front may have
/// decided by another one. (Two lengths are refused by hyper; a length beside `Transfer-Encoding` is
/// dropped by it, and the connection closed behind the answer.)
fn refuse_ambiguous(request: &Request) -> Result<(), ApiError> {
    host::check(request.version(), request.headers())
        .map_err(|why| ApiError::invalid(OciCode::Unsupported, why).closing())
}

/// A registry stores and compares bytes; it decodes none. Ten megabytes of a compressed body may be
/// ten gigabytes, and its digest is not the one that the client means.
fn refuse_encodings(request: &Request) -> Result<(), ApiError> {
    let mut codings = request.headers().get_all(CONTENT_ENCODING).iter();
    if codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let message = "request bodies with a Content-Encoding are refused: send the content as it is";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, OciCode::Unsupported, message))
}

/// An answer to HEAD: the length it would have, and nothing of that length. Over HTTP/2 nobody below
/// drops the body.
fn without_body(response: &mut Response) {
    let body = std::mem::replace(response.body_mut(), Body::empty());
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
}

/// `/v2/` (end-1).
fn base() -> Response {
    let mut response = Response::new(Body::from("{}"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
