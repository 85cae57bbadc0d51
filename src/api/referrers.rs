//! `/v2/<name>/referrers/<digest>` (end-12).

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::Response;
use serde_json::json;
use tercet_storage::{Digest, RepositoryName, media_type};

use super::error::ApiError;
use super::header::{self, OCI_FILTERS_APPLIED, value};
use super::pagination::next_link;
use super::query::Query;
use super::route;
use crate::core::Core;
use crate::registry::{self, ReferrerQuery};

/// Name of the filter, and of the parameter that asks for it.
const ARTIFACT_TYPE: &str = "artifactType";
/// An index of referrers is a manifest, so it obeys the limit that every client can be expected to
/// bear (spec: "at least 4 megabytes"). Some room is left for what surrounds the descriptors.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024 - 1024;

/// An index of the manifests that have this digest as their subject.
pub(super) async fn list(
    core: &Arc<Core>,
    repository: &RepositoryName,
    subject: &Digest,
    query: &Query,
) -> Result<Response, ApiError> {
    let artifact_type = query.get(ARTIFACT_TYPE).filter(|wanted| !wanted.is_empty());
    let after = match query.get("last").filter(|last| !last.is_empty()) {
        Some(last) => Some(route::digest(last)?),
        None => None,
    };
    let wanted =
        ReferrerQuery { repository, subject, artifact_type, after, bytes_max: PAGE_BYTES_MAX };
    let found = registry::list_referrers(core, &wanted).await?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": found.value.entries,
    });
    let mut response = Response::new(Body::from(index.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
    if artifact_type.is_some() {
        headers.insert(OCI_FILTERS_APPLIED, HeaderValue::from_static(ARTIFACT_TYPE));
    }
    if let Some(last) = &found.value.next_after {
        let path = format!("/v2/{repository}/referrers/{subject}");
        let filter = artifact_type.map(|wanted| (ARTIFACT_TYPE, wanted));
        headers.insert(LINK, value(&next_link(&path, None, &last.to_string(), filter)));
    }
    header::mark(headers, found.freshness);
    Ok(response)
}
