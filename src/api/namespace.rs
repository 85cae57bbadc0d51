//! `?ns=`: the registry that a client means while it asks this one (distribution spec, "Registry
//! Proxying").
//!
//! containerd sends it to every mirror. What is stored here answers, whatever registry is named: a mirror
//! holds `library/alpine` under that name. Its answers repeat the name in `OCI-Namespace`.

use std::net::Ipv6Addr;

use axum::http::{HeaderValue, Method};
use axum::response::Response;

use super::error::{ApiError, OciCode};
use super::header::{OCI_NAMESPACE, value};
use super::query::Query;
use super::route::Shown;

/// Longest name of a host (RFC 1035 section 2.3.4), with a port behind it.
const HOST_BYTES_MAX: usize = 255 + ":65535".len();

/// The source host of a request: `docker.io`, `registry.example:5000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespace(String);

impl Namespace {
    /// Reads the parameter of a pull; other requests have none, and one on them says nothing.
    ///
    /// # Errors
    ///
    /// `400` when it is no host.
    pub(super) fn of(method: &Method, query: &Query) -> Result<Option<Self>, ApiError> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Ok(None);
        }
        let Some(text) = query.get("ns") else { return Ok(None) };
        if is_host(text) {
            return Ok(Some(Self(text.to_owned())));
        }
        let message = format!("ns={}: has to be a host, with a port or without", Shown(text));
        Err(ApiError::invalid(OciCode::NameInvalid, message))
    }

    /// Says in an answer for which registry it was given.
    pub(super) fn mark(&self, response: &mut Response) {
        let host: HeaderValue = value(&self.0);
        response.headers_mut().insert(OCI_NAMESPACE, host);
    }
}

fn is_host(text: &str) -> bool {
    if text.len() > HOST_BYTES_MAX {
        return false;
    }
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_label(label: &str) -> bool {
    let inner = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let ends = !label.starts_with('-') && !label.ends_with('-');
    !label.is_empty() && label.len() <= 63 && ends && label.bytes().all(inner)
}

fn is_port(text: &str) -> bool {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    digits && text.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn of(method: &Method, query: &str) -> Result<Option<Namespace>, ApiError> {
        Namespace::of(method, &Query::parse(Some(query)).unwrap())
    }

    #[test]
    fn hosts_are_taken_and_nothing_else() {
        for host in
            ["docker.io", "localhost:5000", "127.0.0.1:1", "[::1]", "[fd00::1]:443", "A-b_c"]
        {
            let found = of(&Method::GET, &format!("ns={host}")).unwrap();
            assert_eq!(found, Some(Namespace(host.to_owned())));
        }
        let long = "a.".repeat(150);
        for junk in [
            "", ".", "a..b", "-a", "a-", "a:0", "a:65536", "a:", "a:x", "a:1:2", "http://a", "a/b",
            "a b", "a%0d%0ab", "a%00", "%C3%A9", "[::1", "[x]", "[::1]5", "user@a", &long,
        ] {
            let refused = of(&Method::HEAD, &format!("ns={junk}")).unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.code.as_str()), (400, "NAME_INVALID"));
        }
    }

    #[test]
    fn a_push_has_no_namespace() {
        assert_eq!(of(&Method::PUT, "ns=../..").unwrap(), None);
        assert_eq!(of(&Method::GET, "n=1").unwrap(), None);
    }
}
