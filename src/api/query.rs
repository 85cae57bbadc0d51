//! The query of a request.

use super::error::{ApiError, OciCode};
use super::percent;
use super::route::Shown;

/// Most parameters that are looked at; a URI of bounded length cannot hold many more anyway.
const PARAMETERS_MAX: usize = 256;

/// Parameters in their order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the raw, still encoded query.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, ApiError> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PARAMETERS_MAX {
                return Err(ApiError::uri_too_long(format!(
                    "more than {PARAMETERS_MAX} query parameters"
                )));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) =
                (percent::decode_query(key), percent::decode_query(value))
            else {
                return Err(ApiError::invalid(
                    OciCode::Unsupported,
                    format!("query parameter {}: not valid percent encoding", Shown(pair)),
                ));
            };
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn parameters_repeat_and_decode() {
        let query = Query::parse(Some("tag=1&tag=2%2E0&x&digest=sha256%3Aab")).unwrap();
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["1", "2.0"]);
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("none"), None);
    }

    #[test]
    fn bombs_and_junk_are_refused() {
        assert_eq!(Query::parse(Some("a=%zz")).unwrap_err().status.as_u16(), 400);
        assert_eq!(Query::parse(Some(&"a=1&".repeat(300))).unwrap_err().status.as_u16(), 414);
    }
}
