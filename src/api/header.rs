//! Headers that the API reads and writes.

use axum::http::header::WARNING;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tercet_raft::Freshness;
use tercet_storage::planted::{PlantedBug, is_planted};

pub(crate) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(crate) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A header's value from text that was built of parsed parts. Text that no header can hold becomes an
/// empty value instead of a panic.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// `Range` of an upload session: `0-<last byte>`. An empty session is `0-0`, as the spec leaves no
/// other way to write it and other registries do.
pub(crate) fn inclusive_range(offset: u64) -> HeaderValue {
    value(&format!("0-{}", offset.saturating_sub(1)))
}

/// Marks an answer that was given without the majority (RFC 7234 section 5.5.1).
pub(crate) fn mark(headers: &mut HeaderMap, freshness: Freshness) {
    if freshness == Freshness::Stale && !is_planted(PlantedBug::StaleAsFresh) {
        headers.insert(WARNING, HeaderValue::from_static("110 - \"Response is Stale\""));
    }
}

/// A `Warning` that a client shows to its user (spec, "Warnings"). `text` holds no quotes.
pub(crate) fn warning(text: &str) -> HeaderValue {
    value(&format!("299 - \"{text}\""))
}

/// A header as text; one that is not visible ASCII counts as absent.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether `If-None-Match` names this entity tag (RFC 9110 section 13.1.2, weak comparison). It may come
/// in several lines.
pub(crate) fn if_none_match(headers: &HeaderMap, etag: &str) -> bool {
    let lines = headers.get_all(axum::http::header::IF_NONE_MATCH).iter();
    let tags = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    tags.map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn ranges_of_sessions() {
        assert_eq!(inclusive_range(0), "0-0");
        assert_eq!(inclusive_range(1), "0-0");
        assert_eq!(inclusive_range(10), "0-9");
    }

    #[test]
    fn entity_tags() {
        let mut headers = HeaderMap::new();
        assert!(!if_none_match(&headers, "\"a\""));
        headers
            .insert(axum::http::header::IF_NONE_MATCH, HeaderValue::from_static("\"b\", W/\"a\""));
        assert!(if_none_match(&headers, "\"a\""));
        assert!(!if_none_match(&headers, "\"c\""));
        headers.append(axum::http::header::IF_NONE_MATCH, HeaderValue::from_static("\"x\",\"c\""));
        assert!(if_none_match(&headers, "\"c\""));
        let any = HeaderMap::from_iter([(
            axum::http::header::IF_NONE_MATCH,
            HeaderValue::from_static("*"),
        )]);
        assert!(if_none_match(&any, "\"a\""));
    }
}
