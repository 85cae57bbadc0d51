//! `tags/list` (end-8) and `_catalog`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::Response;
use serde_json::{Value, json};
use tercet_storage::RepositoryName;

use super::error::ApiError;
use super::header::{self, value};
use super::pagination::{Page, next_link};
use super::query::Query;
use crate::auth::Rights;
use crate::core::Core;
use crate::registry::{self, Current, ListPage};

/// Tags of a repository.
pub(super) async fn tags(
    core: &Arc<Core>,
    repository: &RepositoryName,
    query: &Query,
) -> Result<Response, ApiError> {
    let page = Page::parse(query, core.config.limits.page_size_max)?;
    let found = registry::list_tags(core, repository, page.after.as_deref(), page.size).await?;
    let body = json!({ "name": repository.as_str(), "tags": found.value.entries });
    Ok(list(&format!("/v2/{repository}/tags/list"), &page, &found, &body))
}

/// Repositories of the registry, as far as the one who asks may read them.
pub(super) async fn repositories(
    core: &Arc<Core>,
    rights: &Rights,
    query: &Query,
) -> Result<Response, ApiError> {
    let page = Page::parse(query, core.config.limits.page_size_max)?;
    let found = registry::list_repositories(core, rights, page.after.as_deref(), page.size).await?;
    let body = json!({ "repositories": found.value.entries });
    Ok(list("/v2/_catalog", &page, &found, &body))
}

fn list(path: &str, page: &Page, found: &Current<ListPage<String>>, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(last) = &found.value.next_after {
        headers.insert(LINK, value(&next_link(path, Some(page.size), last, None)));
    }
    header::mark(headers, found.freshness);
    response
}
