//! Whether the `Host` of a request is one host (RFC 9112 section 3.2).

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version};

/// Checks that a request names one host, and that it is none only where HTTP allows that. Somebody in
/// front may decide by it, and clients are told to fetch tokens from it.
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err("a request has one Host header"),
        (Some(host), None) if !is_host(host) => {
            Err("the Host header is no host name or address with an optional port")
        }
        (None, _) if version == Version::HTTP_11 => Err("a request has a Host header"),
        _ => Ok(()),
    }
}

/// Stricter than a URI's authority: no user, and none of the marks that a name in DNS cannot have. An
/// empty value stands for an unknown host.
fn is_host(value: &HeaderValue) -> bool {
    let known = |octet: u8| octet.is_ascii_alphanumeric() || b"-._:[]%".contains(&octet);
    let Ok(text) = value.to_str() else { return false };
    text.is_empty() || (text.bytes().all(known) && text.parse::<Authority>().is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn with(hosts: &[&str]) -> Result<(), &'static str> {
        let value = |text: &&str| (HOST, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in hosts.iter().map(value) {
            headers.append(name, value);
        }
        check(Version::HTTP_11, &headers)
    }

    #[test]
    fn names_and_addresses_are_hosts() {
        let good = [
            "registry",
            "registry.example.org:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "[fe80::1]",
            "",
        ];
        for host in good {
            assert_eq!(with(&[host]), Ok(()), "{host}");
        }
    }

    #[test]
    fn what_is_none_or_two_is_refused() {
        for host in ["a b", "a/b", "user@host", "a\\b", "a,b", "a:b:c", "[::1", "caf\u{e9}", "a?b"]
        {
            assert!(with(&[host]).is_err(), "{host}");
        }
        assert!(with(&["a", "a"]).is_err());
        assert!(with(&[]).is_err());
        // HTTP/1.0 has none, HTTP/2 has a field of its own for it.
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(check(version, &HeaderMap::new()), Ok(()));
        }
    }
}
