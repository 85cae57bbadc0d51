//! Doors for the fuzz targets in `chaos/fuzz`: what reads a client's text, and nothing else.
//!
//! No interface: it changes with the parsers behind it.

use std::ops::Range;

use axum::body::HttpBody;
use axum::response::IntoResponse;

use super::error::ApiError;
use super::pagination::{self, Page};
use super::query::Query;
use super::range::{self, Wanted};
use super::route::Route;
use super::{header, percent, scope};
use crate::auth::Grants;

/// An answer that refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The OCI code in the body.
    pub code: &'static str,
    /// Size of the body in bytes.
    pub body_bytes: u64,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        let (status, code) = (error.status.as_u16(), error.code.as_str());
        let body = error.into_response().into_body();
        Self { status, code, body_bytes: body.size_hint().exact().unwrap_or(u64::MAX) }
    }
}

/// Reads the raw path of a request; answers the one spelling of what it names.
///
/// # Errors
/// The refusal that a client would get.
pub fn path(raw: &str) -> Result<String, Refused> {
    Ok(match Route::parse(raw)? {
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Blob(name, digest) => format!("/v2/{name}/blobs/{digest}"),
        Route::Uploads(name) => format!("/v2/{name}/blobs/uploads/"),
        Route::Upload(name, id) => format!("/v2/{name}/blobs/uploads/{id}"),
        Route::Manifest(name, reference) => format!("/v2/{name}/manifests/{reference}"),
        Route::Tags(name) => format!("/v2/{name}/tags/list"),
        Route::Referrers(name, digest) => format!("/v2/{name}/referrers/{digest}"),
        _ => "/v2/".to_owned(),
    })
}

/// Reads the raw query of a list; answers the page it asks for, and the link to the next one.
///
/// # Errors
/// The refusal that a client would get.
pub fn page(raw: &str, size_max: usize) -> Result<(usize, Option<String>, String), Refused> {
    let page = Page::parse(&Query::parse(Some(raw))?, size_max)?;
    let last = page.after.clone().unwrap_or_default();
    let link = pagination::next_link("/v2/a/tags/list", Some(page.size), &last, None);
    Ok((page.size, page.after, link))
}

/// Encodes text as the value of a query parameter.
#[must_use]
pub fn escape(text: &str) -> String {
    percent::encode_query(text)
}

/// Decodes the value of a query parameter.
#[must_use]
pub fn unescape(text: &str) -> Option<String> {
    percent::decode_query(text)
}

/// What a `Range` header asks of content of `size` bytes; empty stands for all of it.
///
/// # Errors
/// Nothing of what it asks for is there: `416`.
pub fn range(header: &str, size: u64) -> Result<Vec<Range<u64>>, Unsatisfiable> {
    match range::parse_range(Some(header), size) {
        Wanted::Part(range) => Ok(vec![range]),
        Wanted::Parts(parts) => Ok(parts),
        Wanted::Unsatisfiable => Err(Unsatisfiable),
        Wanted::Full => Ok(Vec::new()),
    }
}

/// No byte of the content is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsatisfiable;

/// The bytes that a chunk's `Content-Range` speaks of.
#[must_use]
pub fn content_range(header: &str) -> Option<Range<u64>> {
    range::parse_content_range(header)
}

/// Whether the list of an `If-None-Match` names an entity tag.
#[must_use]
pub fn if_none_match(list: &str, etag: &str) -> bool {
    let mut headers = axum::http::HeaderMap::new();
    headers.insert(axum::http::header::IF_NONE_MATCH, header::value(list));
    header::if_none_match(&headers, etag)
}

/// What the `scope` of a token's request asks for; `None` if that is too much.
#[must_use]
pub fn scopes(parameter: &str) -> Option<Grants> {
    scope::parse(std::iter::once(parameter))
}
