//! `/v2/<name>/blobs/uploads/`: POST (end-4, end-11) and, on a session, PATCH (end-5), PUT (end-6), GET
//! (end-13) and DELETE (end-14).

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{LOCATION, RANGE};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tercet_storage::{Algorithm, Digest, RepositoryName, UploadId};

use super::body;
use super::error::{ApiError, OciCode, upload_location};
use super::header::{CONTENT_DIGEST, UPLOAD_UUID, inclusive_range, value};
use super::keeper::{self, Handled};
use super::owner::{self, Place, locate};
use super::query::Query;
use super::route::{self, Shown};
use crate::auth::{Principal, Rights};
use crate::core::Core;
use crate::registry::{self, Chunk, Mounted, OnFailure, Session};

/// Opens a session, mounts a blob, or takes a whole blob in one request.
pub(super) async fn begin(
    core: &Arc<Core>,
    rights: &Rights,
    repository: &RepositoryName,
    query: &Query,
    request: Request,
) -> Result<Response, ApiError> {
    let request = match keeper::pass_on(core, request).await? {
        Handled::Elsewhere(response) => return Ok(response),
        Handled::NotYet(request) => request,
    };
    let opened_by = rights.principal();
    let algorithm = query.get("digest-algorithm").map(algorithm).transpose()?;
    if let Some(digest) = query.get("mount") {
        let digest = route::digest(digest)?;
        let from = match query.get("from") {
            // What may not be read is not there: the answer must not tell what it holds (CVE-2024-39897).
            Some(from) => Some(route::repository(from)?).filter(|from| rights.may_pull(from)),
            // The spec lets a registry look for it.
            None => {
                let readable = |from: &RepositoryName| rights.may_pull(from);
                registry::find_source(core, repository, &digest, readable).await?
            }
        };
        if let Some(from) = from
            && registry::mount(core, repository, &digest, &from).await? == Mounted::Yes
        {
            return Ok(created(repository, &digest));
        }
        // To be uploaded then (spec: "202"), most likely with that digest.
        let algorithm = algorithm.unwrap_or(digest.algorithm());
        let session = registry::open_session(core, repository, algorithm, opened_by).await?;
        return Ok(session_state(&session, StatusCode::ACCEPTED));
    }
    if let Some(digest) = query.get("digest") {
        let digest = route::digest(digest)?;
        return whole(core, opened_by, repository, &digest, request).await;
    }
    let algorithm = algorithm.unwrap_or(Algorithm::Sha256);
    let session = registry::open_session(core, repository, algorithm, opened_by).await?;
    Ok(session_state(&session, StatusCode::ACCEPTED))
}

/// `POST ?digest=`: the client never learns of the session, so a failure ends it.
async fn whole(
    core: &Arc<Core>,
    opened_by: &Principal,
    repository: &RepositoryName,
    digest: &Digest,
    request: Request,
) -> Result<Response, ApiError> {
    let session = registry::open_session(core, repository, digest.algorithm(), opened_by).await?;
    let chunk = Chunk { body: body::streamed(request), range: None };
    registry::close(core, &session, Some(chunk), digest, OnFailure::End).await?;
    Ok(created(repository, digest))
}

/// A request on a session, answered by the replica that serves it.
pub(super) async fn on_session(
    core: &Arc<Core>,
    repository: &RepositoryName,
    id: &UploadId,
    query: &Query,
    request: Request,
) -> Result<Response, ApiError> {
    let digest = match (request.method() == Method::PUT, query.get("digest")) {
        (false, _) => None,
        (true, Some(digest)) => Some(route::digest(digest)?),
        (true, None) => {
            let message = "closing an upload needs the parameter digest";
            return Err(ApiError::invalid(OciCode::DigestInvalid, message));
        }
    };
    let (session, request) = match locate(core, id, request).await? {
        (Place::Answered(response), _) => return Ok(response),
        (Place::Here(session), Some(request)) if session.repository == *repository => {
            (session, request)
        }
        // A session of another repository is not known in this one.
        (Place::Here(_), _) => return Err(ApiError::upload_unknown(id)),
    };
    match (request.method().clone(), digest) {
        (Method::PUT, Some(digest)) => {
            let last = last_chunk(request)?;
            registry::close(core, &session, last, &digest, OnFailure::Keep).await?;
            Ok(created(repository, &digest))
        }
        (Method::PATCH, _) => {
            registry::append(core, &session, body::chunk(request)?).await?;
            // The process may have been frozen in the middle, and the holders' word on that lost.
            if owner::leave_if_behind(core, &session).await? {
                return Err(owner::taken_over(id));
            }
            Ok(session_state(&session, StatusCode::ACCEPTED))
        }
        (Method::DELETE, _) => {
            registry::cancel(core, &session).await?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        _ if session.is_open() => Ok(session_state(&session, StatusCode::NO_CONTENT)),
        _ => Err(ApiError::upload_unknown(id)),
    }
}

/// The chunk that a closing `PUT` may carry. A body that is there but empty, without a range, is none.
fn last_chunk(request: Request) -> Result<Option<Chunk>, ApiError> {
    let without_body = request.body().is_end_stream() || body::length(request.headers()) == Some(0);
    // Some clients put the range of the whole blob on a PUT without a body; it places nothing.
    if without_body {
        return Ok(None);
    }
    body::chunk(request).map(Some)
}

fn algorithm(name: &str) -> Result<Algorithm, ApiError> {
    [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|known| known.name() == name)
        .ok_or_else(|| {
            let message =
                format!("digest-algorithm {}: sha256 and sha512 are supported", Shown(name));
            ApiError::invalid(OciCode::DigestInvalid, message)
        })
}

/// Where a session stands.
fn session_state(session: &Session, status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&upload_location(session.repository.as_str(), &session.id)));
    headers.insert(RANGE, inclusive_range(session.offset()));
    headers.insert(UPLOAD_UUID, value(&session.id.to_string()));
    response
}

/// `201` for a blob.
fn created(repository: &RepositoryName, digest: &Digest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&format!("/v2/{repository}/blobs/{digest}")));
    headers.insert(CONTENT_DIGEST, value(&digest.to_string()));
    response
}
