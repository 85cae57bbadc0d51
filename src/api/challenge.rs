//! `WWW-Authenticate`: where a client gets a token that would do (Docker's token authentication, with the
//! error codes of RFC 6750).

use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;

use crate::config::Access;
use crate::server::Scheme;

/// Path of the token endpoint.
pub(super) const TOKEN_PATH: &str = "/token";

/// Why a request with a token is refused (RFC 6750 section 3.1). Without credentials there is no error to
/// name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenError {
    /// Expired, forged, or for somebody else.
    InvalidToken,
    /// A good token that does not allow this.
    InsufficientScope,
}

impl TokenError {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// The header's value. `scope` is made of parsed names only.
pub(super) fn challenge(
    parts: &Parts,
    access: &Access,
    scope: Option<&str>,
    error: Option<TokenError>,
) -> String {
    let mut text = String::from("Bearer ");
    let realm = access.token_realm.clone().unwrap_or_else(|| realm_of(parts));
    let parameters = [
        ("realm", Some(realm.as_str())),
        ("service", Some(access.service.as_str())),
        ("scope", scope),
        ("error", error.map(TokenError::as_str)),
    ];
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        if !text.ends_with(' ') {
            text.push(',');
        }
        text.push_str(&format!("{name}=\"{}\"", quoted(value)));
    }
    text
}

/// The token endpoint as the client reaches it, by the host it asked. Where a proxy in front changes
/// scheme or host, `access.token_realm` says it.
fn realm_of(parts: &Parts) -> String {
    let scheme = parts.extensions.get::<Scheme>().copied().unwrap_or(Scheme::Http);
    let asked = parts.uri.authority().cloned().or_else(|| {
        let host = parts.headers.get(HOST)?.to_str().ok()?;
        host.parse::<Authority>().ok()
    });
    // A user name before the host would send the client's credentials to whatever it names.
    let asked = asked.filter(|host| !host.as_str().contains('@') && !host.host().is_empty());
    match asked {
        Some(host) => format!("{}://{host}{TOKEN_PATH}", scheme.as_str()),
        // HTTP/1.0 without a host: clients that need a token name one.
        None => TOKEN_PATH.to_owned(),
    }
}

/// The inside of a quoted string (RFC 9110 section 5.6.4), without anything that a header cannot hold.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ') {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use axum::http::Request;

    use super::*;

    fn asked(host: Option<&str>, scheme: Option<Scheme>) -> Parts {
        let mut request = Request::builder().uri("/v2/");
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        if let Some(scheme) = scheme {
            parts.extensions.insert(scheme);
        }
        parts
    }

    #[test]
    fn it_names_the_host_that_was_asked() {
        let access = Access::default();
        let text = |host, scheme| challenge(&asked(host, scheme), &access, None, None);
        assert_eq!(
            text(Some("registry.example:5000"), Some(Scheme::Https)),
            "Bearer realm=\"https://registry.example:5000/token\",service=\"tercet\""
        );
        assert_eq!(
            text(Some("[::1]:5000"), None),
            "Bearer realm=\"http://[::1]:5000/token\",service=\"tercet\""
        );
        for host in [Some("user@elsewhere.example"), Some("a b"), Some("a\"b"), Some(""), None] {
            assert_eq!(text(host, None), "Bearer realm=\"/token\",service=\"tercet\"", "{host:?}");
        }
    }

    #[test]
    fn scope_and_error_are_told_and_nothing_breaks_out() {
        let access = Access {
            token_realm: Some("https://auth.example/token".to_owned()),
            service: "a\"b\\c".to_owned(),
            ..Access::default()
        };
        let scope = Some("repository:team/app:pull,push");
        let text =
            challenge(&asked(None, None), &access, scope, Some(TokenError::InsufficientScope));
        assert_eq!(
            text,
            "Bearer realm=\"https://auth.example/token\",service=\"a\\\"b\\\\c\",\
             scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\""
        );
    }
}
