//! The `Authorization` header, read strictly.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes of the longest header.
pub(super) const HEADER_BYTES_MAX: usize = 8 * 1024;
/// The same where Kubernetes tokens come in as passwords.
pub(super) const HEADER_BYTES_MAX_KUBERNETES: usize = 16 * 1024;

/// What a request shows to say who it is from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nothing.
    Absent,
    /// User name and password (RFC 7617).
    Basic { user: String, password: Sensitive },
    /// A token of ours (RFC 6750).
    Bearer(Sensitive),
}

/// Text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sensitive(pub(super) String);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

impl Credentials {
    /// Reads the header. The error says what is wrong with it.
    pub(super) fn read(headers: &HeaderMap, bytes_max: usize) -> Result<Self, &'static str> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let Some(line) = lines.next() else { return Ok(Self::Absent) };
        if lines.next().is_some() {
            // Whoever stands in front may have decided by the other one.
            return Err("a request has one Authorization header");
        }
        if line.len() > bytes_max {
            return Err("the Authorization header is too long");
        }
        let line = line.to_str().map_err(|_| "the Authorization header is not ASCII")?;
        let (scheme, rest) = line.split_once(' ').ok_or("the Authorization header is damaged")?;
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            basic(rest)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Ok(Self::Bearer(Sensitive(rest.to_owned())))
        } else {
            Err("only Basic and Bearer are understood")
        }
    }
}

fn basic(encoded: &str) -> Result<Credentials, &'static str> {
    let bytes = STANDARD.decode(encoded).map_err(|_| "the Basic credentials are not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "the Basic credentials are not UTF-8")?;
    let (user, password) = text.split_once(':').ok_or("the Basic credentials have no colon")?;
    if user.is_empty() || user.chars().any(char::is_control) {
        return Err("the Basic credentials have no user name");
    }
    Ok(Credentials::Basic { user: user.to_owned(), password: Sensitive(password.to_owned()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use axum::http::HeaderValue;

    use super::*;

    fn read(lines: &[&str]) -> Result<Credentials, &'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Credentials::read(&headers, HEADER_BYTES_MAX)
    }

    fn basic(user: &str, password: &str) -> Result<Credentials, &'static str> {
        let (user, password) = (user.to_owned(), Sensitive(password.to_owned()));
        Ok(Credentials::Basic { user, password })
    }

    #[test]
    fn what_clients_send_is_read() {
        assert_eq!(read(&[]), Ok(Credentials::Absent));
        assert_eq!(read(&["Basic YWxpY2U6d29uZGVybGFuZA=="]), basic("alice", "wonderland"));
        assert_eq!(read(&["basic  YWxpY2U6YTpi"]), basic("alice", "a:b"));
        assert_eq!(read(&["Basic YWxpY2U6"]), basic("alice", ""));
        let token = Sensitive("a.b.c".to_owned());
        assert_eq!(read(&["BEARER a.b.c"]), Ok(Credentials::Bearer(token)));
    }

    #[test]
    fn everything_else_is_refused() {
        for line in [
            "",
            "Basic",
            "Bearer",
            "Digest username=x",
            "Negotiate abc",
            "Basic YWxpY2U6d29uZGVybGFuZA",
            "Basic YWxpY2U6d29uZGVybGFuZB==",
            "Basic YWxp Y2U6",
            "Basic YWxpY2U=",
            "Basic OnBhc3N3b3Jk",
            "Basic YWwKaWNlOng=",
            "Basic /zp4",
            "Basic YWxpY2U6-_==",
        ] {
            assert!(read(&[line]).is_err(), "{line}");
        }
        let both = read(&["Basic YWxpY2U6", "Bearer a.b.c"]);
        assert_eq!(both, Err("a request has one Authorization header"));
        let long = format!("Bearer {}", "a".repeat(HEADER_BYTES_MAX));
        assert_eq!(read(&[&long]), Err("the Authorization header is too long"));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let shown = format!("{:?}", read(&["Basic YWxpY2U6d29uZGVybGFuZA=="]));
        assert!(shown.contains("alice") && !shown.contains("wonderland"), "{shown}");
        let shown = format!("{:?}", read(&["Bearer a.b.c"]));
        assert!(!shown.contains("a.b.c"), "{shown}");
    }
}
