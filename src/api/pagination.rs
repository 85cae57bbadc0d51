//! `n`, `last` and `Link: rel="next"` of the lists.

use super::error::{ApiError, OciCode};
use super::percent;
use super::query::Query;
use super::route::Shown;

/// Longest `last` that is looked at; no name in a list is longer.
const LAST_BYTES_MAX: usize = 255;

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Most entries of the answer, never above the configured page size.
    pub(crate) size: usize,
    /// The answer begins after this one.
    pub(crate) after: Option<String>,
}

impl Page {
    /// Reads `n` and `last`. A huge `n` is clamped, never allocated (CVE-2023-2253).
    pub(crate) fn parse(query: &Query, size_max: usize) -> Result<Self, ApiError> {
        let size = match query.get("n") {
            None => size_max,
            Some(n) if !n.is_empty() && n.bytes().all(|octet| octet.is_ascii_digit()) => {
                n.parse().unwrap_or(usize::MAX).min(size_max)
            }
            Some(n) => {
                let message = format!("n={}: not a whole number of entries", Shown(n));
                return Err(ApiError::invalid(OciCode::PaginationNumberInvalid, message));
            }
        };
        let after = match query.get("last") {
            None | Some("") => None,
            Some(last)
                if last.len() <= LAST_BYTES_MAX && last.bytes().all(|o| o.is_ascii_graphic()) =>
            {
                Some(last.to_owned())
            }
            Some(last) => {
                let message = format!("last={}: cannot be an entry of a list", Shown(last));
                return Err(ApiError::invalid(OciCode::NameInvalid, message));
            }
        };
        Ok(Self { size, after })
    }
}

/// The value of `Link` that leads to the page after `last`. `filter` is a parameter that the next page
/// has to carry too.
pub(crate) fn next_link(
    path: &str,
    size: Option<usize>,
    last: &str,
    filter: Option<(&str, &str)>,
) -> String {
    let mut target = format!("{path}?");
    if let Some(size) = size {
        target.push_str(&format!("n={size}&"));
    }
    if let Some((key, value)) = filter {
        target.push_str(&format!("{key}={}&", percent::encode_query(value)));
    }
    format!("<{target}last={}>; rel=\"next\"", percent::encode_query(last))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn page(query: &str) -> Result<Page, ApiError> {
        Page::parse(&Query::parse(Some(query)).unwrap(), 1000)
    }

    #[test]
    fn n_is_clamped_and_junk_refused() {
        assert_eq!(page("").unwrap(), Page { size: 1000, after: None });
        assert_eq!(page("n=0").unwrap().size, 0);
        assert_eq!(page("n=7&last=b").unwrap(), Page { size: 7, after: Some("b".to_owned()) });
        for n in ["9223372036854775808", "99999999999999999999999999999999"] {
            assert_eq!(page(&format!("n={n}")).unwrap().size, 1000);
        }
        for n in ["-1", "", "abc", "1.5", "%31%00", "+1"] {
            let error = page(&format!("n={n}")).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), error.code.as_str()),
                (400, "PAGINATION_NUMBER_INVALID")
            );
        }
    }

    #[test]
    fn last_is_text_of_bounded_length() {
        assert_eq!(page(&format!("last={}", "a".repeat(256))).unwrap_err().status.as_u16(), 400);
        assert_eq!(page("last=a%00b").unwrap_err().status.as_u16(), 400);
        assert_eq!(page("last=~junk~").unwrap().after.as_deref(), Some("~junk~"));
    }

    #[test]
    fn links() {
        assert_eq!(
            next_link("/v2/a/tags/list", Some(2), "v1", None),
            "</v2/a/tags/list?n=2&last=v1>; rel=\"next\""
        );
        assert_eq!(
            next_link("/r", None, "sha256:ab", Some(("artifactType", "a/b+json"))),
            "</r?artifactType=a/b%2Bjson&last=sha256:ab>; rel=\"next\""
        );
    }
}
