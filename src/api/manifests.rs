//! `/v2/<name>/manifests/<reference>`: GET, HEAD (end-3), PUT (end-7), DELETE (end-9).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION, WARNING,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use tercet_storage::{Digest, Reference, RepositoryName, Tag};

use super::body;
use super::error::{ApiError, OciCode};
use super::header::{self, CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, value};
use super::query::Query;
use super::route::Shown;
use crate::core::Core;
use crate::registry::{self, ManifestPush, Precondition};

/// Most `?tag=` of one push (the spec asks for ten at least).
const TAGS_MAX: usize = 64;
/// Most absent digests that a warning names; it has to stay below 4,096 bytes (spec, "Warnings").
const WARNED_DIGESTS_MAX: usize = 8;

/// The manifest as it was pushed, whatever `Accept` says: there is nothing to convert it into, and
/// clients that ask without naming its type still want it.
pub(super) async fn get(
    core: &Arc<Core>,
    repository: &RepositoryName,
    reference: &Reference,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    let found = registry::find_manifest(core, repository, reference).await?;
    let manifest = found.value;
    let etag = format!("\"{}\"", manifest.digest);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(&manifest.digest.to_string()));
    headers.insert(ETAG, value(&etag));
    header::mark(headers, found.freshness);
    if header::if_none_match(request, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(CONTENT_TYPE, value(&manifest.media_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(manifest.bytes.len()));
    // On HEAD the server sends the headers and drops the body.
    *response.body_mut() = Body::from(manifest.bytes);
    Ok(response)
}

/// Stores a manifest.
pub(super) async fn put(
    core: &Arc<Core>,
    repository: RepositoryName,
    reference: Reference,
    query: &Query,
    request: Request,
) -> Result<Response, ApiError> {
    let tags = tags(query)?;
    let tags_in_query = !tags.is_empty();
    let precondition = precondition(request.headers())?;
    if precondition == Precondition::Exists && names_several_tags(&reference, &tags) {
        let message = "If-Match: * is for one tag: of several, name the digest that all have";
        return Err(ApiError::invalid(OciCode::Unsupported, message));
    }
    let (parts, body) = request.into_parts();
    let content_type = header::text(&parts.headers, &CONTENT_TYPE)
        .map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .filter(|text| !text.is_empty());
    let bytes = body::read(&parts.headers, body, core.config.limits.manifest_bytes).await?;
    let push = ManifestPush {
        repository: repository.clone(),
        reference,
        tags,
        content_type,
        bytes,
        precondition,
    };
    let pushed = registry::push_manifest(core, push).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&format!("/v2/{repository}/manifests/{}", pushed.digest)));
    headers.insert(CONTENT_DIGEST, value(&pushed.digest.to_string()));
    headers.insert(ETAG, value(&format!("\"{}\"", pushed.digest)));
    if let Some(subject) = &pushed.subject {
        headers.insert(OCI_SUBJECT, value(&subject.to_string()));
    }
    if !pushed.absent.is_empty() {
        headers.insert(WARNING, header::warning(&sparse_warning(&pushed.absent)));
    }
    if tags_in_query {
        for tag in &pushed.tags {
            headers.append(OCI_TAG, value(tag.as_str()));
        }
    }
    Ok(response)
}

fn sparse_warning(absent: &[Digest]) -> String {
    let shown = absent.iter().take(WARNED_DIGESTS_MAX).map(ToString::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = if absent.len() > WARNED_DIGESTS_MAX { ", ..." } else { "" };
    format!("the repository lacks {} of what the manifest names: {shown}{more}", absent.len())
}

/// Removes a tag, or a manifest with its tags.
pub(super) async fn delete(
    core: &Arc<Core>,
    repository: &RepositoryName,
    reference: &Reference,
    request: &HeaderMap,
) -> Result<Response, ApiError> {
    if request.contains_key(IF_MATCH) || request.contains_key(IF_NONE_MATCH) {
        let message = "a delete takes neither If-Match nor If-None-Match";
        return Err(ApiError::invalid(OciCode::Unsupported, message));
    }
    match reference {
        Reference::Tag(tag) => registry::delete_tag(core, repository, tag).await?,
        Reference::Digest(digest) => registry::delete_manifest(core, repository, digest).await?,
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn tags(query: &Query) -> Result<Vec<Tag>, ApiError> {
    let mut tags: Vec<Tag> = Vec::new();
    for text in query.all("tag") {
        if tags.len() == TAGS_MAX {
            return Err(ApiError::uri_too_long(format!("more than {TAGS_MAX} tags in one push")));
        }
        tags.push(text.parse().map_err(|error| {
            ApiError::invalid(OciCode::NameInvalid, format!("tag {}: {error}", Shown(text)))
        })?);
    }
    Ok(tags)
}

fn names_several_tags(reference: &Reference, tags: &[Tag]) -> bool {
    let first = match reference {
        Reference::Tag(tag) => Some(tag),
        Reference::Digest(_) => tags.first(),
    };
    tags.iter().any(|tag| Some(tag) != first)
}

/// Reads `If-Match` and `If-None-Match` (RFC 9110 section 13.1). They speak of the tags of the push, or
/// of the manifest itself when there are none; the entity tag is the digest.
fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let refused = |message: &str| Err(ApiError::invalid(OciCode::Unsupported, message));
    for name in [IF_MATCH, IF_NONE_MATCH] {
        if headers.get_all(&name).iter().count() > 1 {
            return refused("a push takes one line of If-Match or If-None-Match");
        }
    }
    let precondition = match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => return Ok(Precondition::None),
        (Some(_), Some(_)) => return refused("If-Match and If-None-Match exclude each other"),
        (None, Some(tag)) if tag.as_bytes() == b"*" => Precondition::Absent,
        (None, Some(_)) => return refused("If-None-Match on a push can only be *"),
        (Some(tag), None) if tag.as_bytes() == b"*" => Precondition::Exists,
        (Some(tag), None) => {
            let text = tag.to_str().unwrap_or_default().trim();
            let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            match unquoted.unwrap_or(text).parse() {
                Ok(digest) => Precondition::Matches(digest),
                Err(_) => return refused("If-Match on a push has to be * or one digest in quotes"),
            }
        }
    };
    Ok(precondition)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use axum::http::HeaderName;
    use tercet_storage::Algorithm;

    fn read(pairs: &[(HeaderName, String)]) -> Result<Precondition, ApiError> {
        let headers: HeaderMap =
            pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect();
        precondition(&headers)
    }

    #[test]
    fn conditions_of_a_push() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        assert_eq!(read(&[]).unwrap(), Precondition::None);
        assert_eq!(read(&[(IF_NONE_MATCH, "*".into())]).unwrap(), Precondition::Absent);
        assert_eq!(read(&[(IF_MATCH, "*".into())]).unwrap(), Precondition::Exists);
        assert_eq!(
            read(&[(IF_MATCH, format!("\"{digest}\""))]).unwrap(),
            Precondition::Matches(digest.clone())
        );
        // A condition that cannot be judged is refused, not ignored.
        for (name, text) in [
            (IF_NONE_MATCH, format!("\"{digest}\"")),
            (IF_MATCH, "junk".to_owned()),
            (IF_MATCH, format!("\"{digest}\", \"{digest}\"")),
        ] {
            assert_eq!(read(&[(name, text)]).unwrap_err().status.as_u16(), 400);
        }
        for name in [IF_MATCH, IF_NONE_MATCH] {
            let two = [(name.clone(), "*".to_owned()), (name, "*".to_owned())];
            assert_eq!(read(&two).unwrap_err().status.as_u16(), 400);
        }
    }

    #[test]
    fn several_tags_are_told_from_one_that_is_repeated() {
        let digest = Reference::Digest(Digest::of(Algorithm::Sha256, b"x"));
        let [a, b] = ["a", "b"].map(|text| text.parse::<Tag>().unwrap());
        let tag = Reference::Tag(a.clone());
        for (reference, tags, several) in [
            (&tag, vec![], false),
            (&tag, vec![a.clone()], false),
            (&tag, vec![b.clone()], true),
            (&digest, vec![], false),
            (&digest, vec![b.clone(), b.clone()], false),
            (&digest, vec![a, b], true),
        ] {
            assert_eq!(names_several_tags(reference, &tags), several, "{reference:?} {tags:?}");
        }
    }

    #[test]
    fn many_tags_are_414() {
        let many = |count: usize| "tag=a&".repeat(count);
        assert_eq!(tags(&Query::parse(Some(&many(TAGS_MAX))).unwrap()).unwrap().len(), TAGS_MAX);
        let refused = tags(&Query::parse(Some(&many(TAGS_MAX + 1))).unwrap()).unwrap_err();
        assert_eq!(refused.status.as_u16(), 414);
    }
}
