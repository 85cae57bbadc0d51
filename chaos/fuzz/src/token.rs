//! Tokens, `Authorization` headers, scopes and files of users.

use tercet::api::fuzzing as api;
use tercet::auth::fuzzing as auth;
use tercet::auth::htpasswd::Htpasswd;

use crate::{Verdict, check_error};

const SCOPES_MAX: usize = 100;
const OTHER_KEY: [u8; 32] = [2; 32];

/// Input: a token, or a header's value, or a scope, or a file of users; or the header of a token, and
/// behind the first line the claims.
pub fn token(data: &[u8]) -> Verdict {
    let user = auth::authorization(data).ok().flatten();
    if let Some(user) = &user {
        assert!(
            !user.is_empty() && !user.contains(|c: char| c == ':' || c.is_control()),
            "{user:?}"
        );
    }
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::any([user.is_some()]) };
    // Nobody here knows the key.
    assert!(auth::open(text).is_err(), "accepted: {text}");
    let valid = text.split_once('\n').is_some_and(|(header, claims)| forged(header, claims));
    if let Some(asked) = api::scopes(text) {
        assert!(asked.repositories.len() <= SCOPES_MAX);
        let mut names: Vec<_> = asked.repositories.iter().map(|grant| &grant.repository).collect();
        names.sort();
        assert!(names.is_sorted_by(|one, next| one < next), "a repository twice");
    }
    if let Err(error) = Htpasswd::parse(text) {
        check_error(&error);
    }
    Verdict::any([user.is_some(), valid])
}

/// Whether they are a token, if only it is signed with the right key.
fn forged(header: &str, claims: &str) -> bool {
    for secret in [&OTHER_KEY[..], &[], b"k1", header.as_bytes()] {
        let token = auth::forge(header, claims, secret).unwrap_or_default();
        assert!(auth::open(&token).is_err(), "accepted with another key: {token}");
    }
    let Some(token) = auth::forge(header, claims, &auth::KEY) else { return false };
    let Ok((principal, grants)) = auth::open(&token) else { return false };
    // What is accepted is what a replica could have signed.
    if let Some(own) = auth::sign(&principal, &grants) {
        assert_eq!(auth::open(&own), Ok((principal, grants)), "other rights when signed again");
    }
    let (message, signature) = token.rsplit_once('.').expect("a token has dots");
    for bent in [
        format!("{message}."),
        message.to_owned(),
        format!("{token}."),
        format!("{token}="),
        format!("{token}A"),
        format!(" {token}"),
        format!("{message}.{}", signature.to_uppercase()),
    ] {
        assert!(bent == token || auth::open(&bent).is_err(), "accepted: {bent}");
    }
    // One character of it, a different one for each input.
    let at = (header.len() * 31 + claims.len()) % token.len();
    let bent: String =
        token.char_indices().map(|(i, c)| if i == at { other(c) } else { c }).collect();
    assert!(auth::open(&bent).is_err(), "accepted with another character at {at}: {bent}");
    true
}

fn other(character: char) -> char {
    if character == 'A' { 'B' } else { 'A' }
}
