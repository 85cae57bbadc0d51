//! Doors for the fuzz targets in `chaos/fuzz`: what reads tokens and credentials, and nothing else.
//!
//! No interface: it changes with the readers behind it.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use tercet_storage::{Secret, TokenKey};

use super::credentials::{Credentials, HEADER_BYTES_MAX};
use super::token::{self, Scene};
use super::{Grants, Principal};

/// The time at which tokens are judged here, in seconds since the Unix epoch.
pub const NOW_S: u64 = 1_795_341_600;
/// The key with which they are judged. It signs nothing anywhere else.
pub const KEY: [u8; 32] = [1; 32];

const SCENE: Scene<'static> = Scene { issuer: "cluster-1", audience: "tercet", now_s: NOW_S };

fn key() -> TokenKey {
    TokenKey { id: "k1".to_owned(), secret: Secret::new(KEY), created_ms: NOW_S * 1_000 }
}

/// Verifies a token.
///
/// # Errors
/// Why it is refused.
pub fn open(token: &str) -> Result<(Principal, Grants), &'static str> {
    token::open(token, &key(), SCENE).map_err(|refusal| refusal.0)
}

/// A token as a replica makes it. `None` when it would be too long.
#[must_use]
pub fn sign(principal: &Principal, grants: &Grants) -> Option<String> {
    token::sign(&key(), SCENE, 300, principal, grants).ok().flatten().map(|issued| issued.token)
}

/// A token of any header and any claims, with a signature by `secret` that is right by HS256.
#[must_use]
pub fn forge(header: &str, claims: &str, secret: &[u8]) -> Option<String> {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signing = EncodingKey::from_secret(secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &signing, Algorithm::HS256).ok()?;
    Some(format!("{message}.{signature}"))
}

/// Reads the value of an `Authorization` header. Answers the user of Basic credentials; nothing for a
/// token.
///
/// # Errors
/// What is wrong with it.
pub fn authorization(value: &[u8]) -> Result<Option<String>, &'static str> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).map_err(|_| "no header value")?);
    Ok(match Credentials::read(&headers, HEADER_BYTES_MAX)? {
        Credentials::Basic { user, .. } => Some(user),
        Credentials::Absent | Credentials::Bearer(_) => None,
    })
}
