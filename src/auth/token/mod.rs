//! Tokens of the Docker token flow: JWT (RFC 7519), signed by any replica, accepted by every one.
//!
//! One algorithm, HMAC with SHA-256, whatever the header says. The key is the one that the header's
//! `kid` names among those that the cluster agreed on, and nothing else in the header counts: one that
//! brings a key along is refused, as is one with any field that these tokens do not have.

mod claims;
mod header;
mod keyring;
#[cfg(test)]
mod tests;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use tercet_storage::TokenKey;

pub use claims::{Grant, Grants};
pub use keyring::Keyring;
pub(super) use keyring::KeyringError;

use super::principal::Principal;
use claims::Claims;

/// Bytes of the longest token that is looked at, and made.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of two replicas may be apart, in seconds.
pub(super) const LEEWAY_SECONDS: u64 = 60;
/// The longest life of a token, in seconds, whatever is configured where it was made.
pub(super) const LIFE_SECONDS_MAX: u64 = 24 * 60 * 60;

/// What a token has to be for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    /// The cluster that signs.
    pub(super) issuer: &'a str,
    /// `access.service`.
    pub(super) audience: &'a str,
    /// Seconds since the Unix epoch.
    pub(super) now_s: u64,
}

/// A token that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// How long it is valid, in seconds.
    pub seconds: u64,
    /// When it was made, in seconds since the Unix epoch.
    pub issued_at_s: u64,
}

/// Makes a token. `None` when it would be longer than anybody accepts.
pub(super) fn sign(
    key: &TokenKey,
    scene: Scene<'_>,
    seconds: u64,
    principal: &Principal,
    grants: &Grants,
) -> Result<Option<Issued>, jsonwebtoken::errors::Error> {
    let seconds = seconds.clamp(1, LIFE_SECONDS_MAX);
    let claims = Claims::new(scene, seconds, principal, grants);
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(key.id.clone());
    let secret = EncodingKey::from_secret(key.secret.expose());
    let token = jsonwebtoken::encode(&header, &claims, &secret)?;
    let issued = Issued { token, seconds, issued_at_s: scene.now_s };
    Ok((issued.token.len() <= TOKEN_BYTES_MAX).then_some(issued))
}

/// The id of the key that a token names. Looks at no more than the length and the header.
pub(super) fn key_id(token: &str) -> Result<String, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal("the token is too long"));
    }
    header::key_id(token)
}

/// Verifies a token with the key that it names.
pub(super) fn open(
    token: &str,
    key: &TokenKey,
    scene: Scene<'_>,
) -> Result<(Principal, Grants), Refusal> {
    // Again, so that nobody can call this with another key.
    if key_id(token)? != key.id {
        return Err(Refusal("the token is signed with another key"));
    }
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&[scene.issuer]);
    validation.set_audience(&[scene.audience]);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    // Below, by the clock that was handed in.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let secret = DecodingKey::from_secret(key.secret.expose());
    let opened = jsonwebtoken::decode::<Claims>(token, &secret, &validation);
    let claims = opened.map_err(|error| refusal_of(&error))?.claims;
    claims.check_times(scene.now_s)?;
    claims.meaning()
}

/// Why a token is refused: for the audit log, never with a part of the token in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str);

fn refusal_of(error: &jsonwebtoken::errors::Error) -> Refusal {
    use jsonwebtoken::errors::ErrorKind;
    Refusal(match error.kind() {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidIssuer => "the token is of another cluster",
        ErrorKind::InvalidAudience => "the token is for another service",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim",
        _ => "the token is damaged",
    })
}
