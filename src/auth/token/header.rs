//! The header of a token: exactly what ours have.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Refusal;

/// Characters of the longest encoded header; ours have about 100.
const ENCODED_MAX: usize = 512;
/// Bytes of the longest key id.
const KEY_ID_BYTES_MAX: usize = 64;

/// A field more is a refusal: `jwk`, `jku`, `x5u` and `x5c` would bring a key of the sender's
/// (CVE-2025-24976), `crit` would ask for something we do not do. A field twice is one too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// Reads the header and gives back its `kid`.
pub(super) fn key_id(token: &str) -> Result<String, Refusal> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal("the token does not have three parts"));
    };
    if header.len() > ENCODED_MAX {
        return Err(Refusal("the token's header is too long"));
    }
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| Refusal("the token is damaged"))?;
    let header: StrictHeader = serde_json::from_slice(&json)
        .map_err(|_| Refusal("the token's header is not one of ours"))?;
    if header.alg != "HS256" || header.typ != "JWT" {
        return Err(Refusal("the token's header names another algorithm or type"));
    }
    let fine = (1..=KEY_ID_BYTES_MAX).contains(&header.kid.len())
        && header.kid.bytes().all(|byte| byte.is_ascii_graphic());
    if fine { Ok(header.kid) } else { Err(Refusal("the token's key id is not one of ours")) }
}
