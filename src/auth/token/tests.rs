//! Tokens that somebody forged, bent or kept for too long: every one is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};
use tercet_storage::Secret;

use super::*;
use crate::auth::action::Actions;

const NOW: u64 = 1_795_341_600;
const SCENE: Scene<'static> = Scene { issuer: "cluster-1", audience: "tercet", now_s: NOW };

fn key(id: &str, byte: u8) -> TokenKey {
    TokenKey { id: id.to_owned(), secret: Secret::new([byte; 32]), created_ms: NOW * 1000 }
}

fn alice() -> Principal {
    Principal::User("alice".to_owned())
}

fn grants() -> Grants {
    let grant = |name: &str| Grant { repository: name.parse().unwrap(), actions: Actions::ALL };
    Grants { repositories: vec![grant("team/app"), grant("base")], catalog: true }
}

fn good() -> String {
    sign(&key("k1", 1), SCENE, 300, &alice(), &grants()).unwrap().unwrap().token
}

fn header() -> Value {
    json!({ "alg": "HS256", "typ": "JWT", "kid": "k1" })
}

fn claims() -> Value {
    json!({
        "iss": "cluster-1", "sub": "user:alice", "aud": "tercet",
        "exp": NOW + 300, "nbf": NOW, "iat": NOW, "jti": "1",
        "access": [{ "type": "repository", "name": "team/app", "actions": ["pull"] }],
    })
}

/// A token of any form, with a signature of that secret that is right by HS256.
fn forge_text(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signing = EncodingKey::from_secret(secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &signing, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Signed with the right key.
fn forge(header: &Value, claims: &Value) -> String {
    forge_text(&header.to_string(), &claims.to_string(), &[1; 32])
}

fn judge(token: &str) -> Result<(Principal, Grants), Refusal> {
    open(token, &key("k1", 1), SCENE)
}

fn refused(token: &str) -> &'static str {
    judge(token).expect_err(token).0
}

fn with_header(field: &str, value: Value) -> String {
    let mut header = header();
    header[field] = value;
    forge(&header, &claims())
}

fn with_claim(field: &str, value: Value) -> String {
    let mut claims = claims();
    claims[field] = value;
    forge(&header(), &claims)
}

#[test]
fn a_good_token_says_who_and_what() {
    assert_eq!(judge(&good()), Ok((alice(), grants())));
    assert_eq!(key_id(&good()), Ok("k1".to_owned()));
    assert!(judge(&forge(&header(), &claims())).is_ok(), "the forger's tools work");
    // Two of the same second differ, so that a log can tell them apart.
    assert_ne!(good(), good());
}

#[test]
fn alg_none_with_and_without_a_signature() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let signed = with_header("alg", json!(alg));
        refused(&signed);
        let message = signed.rsplit_once('.').unwrap().0;
        refused(&format!("{message}."));
        refused(message);
    }
}

#[test]
fn another_algorithm_in_the_header_is_refused_even_with_a_right_hs256_signature() {
    for alg in ["HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA", "hs256", "HS256 "] {
        let why = refused(&with_header("alg", json!(alg)));
        assert_eq!(why, "the token's header names another algorithm or type", "{alg}");
    }
    for alg in [json!(null), json!(256), json!(["HS256"])] {
        refused(&with_header("alg", alg));
    }
}

#[test]
fn key_confusion_a_public_value_is_no_key() {
    for public in ["k1", "tercet", "cluster-1", "", "HS256"] {
        let token = forge_text(&header().to_string(), &claims().to_string(), public.as_bytes());
        assert_eq!(refused(&token), "the token's signature is wrong", "{public}");
    }
    // The key in a form in which it might leak or be mixed up.
    let encoded = URL_SAFE_NO_PAD.encode([1; 32]);
    refused(&forge_text(&header().to_string(), &claims().to_string(), encoded.as_bytes()));
    refused(&forge_text(&header().to_string(), &claims().to_string(), &[0; 32]));
}

#[test]
fn cve_2025_24976_a_key_in_the_header_is_refused_even_with_a_kid_that_exists() {
    let own = URL_SAFE_NO_PAD.encode([9; 32]);
    let jwk = json!({ "kty": "oct", "k": own, "alg": "HS256", "kid": "k1" });
    for (field, value) in [
        ("jwk", jwk),
        ("jku", json!("https://attacker.example/keys")),
        ("x5u", json!("https://attacker.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("abc")),
        ("crit", json!(["exp"])),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("anything", json!(1)),
    ] {
        let mut header = header();
        header[field] = value.clone();
        // Signed with the key that it brings, and with ours.
        for secret in [[9; 32], [1; 32]] {
            let token = forge_text(&header.to_string(), &claims().to_string(), &secret);
            assert_eq!(refused(&token), "the token's header is not one of ours", "{field}");
        }
    }
}

#[test]
fn the_kid_decides_and_another_keys_signature_is_wrong() {
    let mut other = header();
    other["kid"] = json!("k2");
    let token = forge(&other, &claims());
    assert_eq!(key_id(&token), Ok("k2".to_owned()));
    assert_eq!(open(&token, &key("k2", 2), SCENE).unwrap_err().0, "the token's signature is wrong");
    assert_eq!(refused(&token), "the token is signed with another key");
}

#[test]
fn without_a_kid_or_with_a_strange_one() {
    let mut none = header();
    none.as_object_mut().unwrap().remove("kid");
    refused(&forge(&none, &claims()));
    for kid in [
        json!(""),
        json!(null),
        json!(1),
        json!(["k1"]),
        json!("k1\u{0}"),
        json!("../../etc/passwd k1"),
        json!("k".repeat(65)),
    ] {
        refused(&with_header("kid", kid));
    }
}

#[test]
fn another_typ() {
    for typ in [json!("at+jwt"), json!("jwt"), json!("JOSE"), json!(null)] {
        refused(&with_header("typ", typ));
    }
    let mut none = header();
    none.as_object_mut().unwrap().remove("typ");
    refused(&forge(&none, &claims()));
}

#[test]
fn expired_with_a_minute_for_clocks_that_disagree() {
    let at = |now_s| open(&good(), &key("k1", 1), Scene { now_s, ..SCENE });
    assert!(at(NOW + 300).is_ok());
    assert!(at(NOW + 300 + LEEWAY_SECONDS - 1).is_ok());
    assert_eq!(at(NOW + 300 + LEEWAY_SECONDS).unwrap_err().0, "the token has expired");
    refused(&with_claim("exp", json!(0)));
}

#[test]
fn from_the_future_with_a_minute_for_clocks_that_disagree() {
    let at = |now_s| open(&good(), &key("k1", 1), Scene { now_s, ..SCENE });
    assert!(at(NOW - LEEWAY_SECONDS).is_ok());
    assert_eq!(at(NOW - LEEWAY_SECONDS - 1).unwrap_err().0, "the token is from the future");
    for claim in ["nbf", "iat"] {
        let why = refused(&with_claim(claim, json!(NOW + LEEWAY_SECONDS + 1)));
        assert_eq!(why, "the token is from the future", "{claim}");
    }
}

#[test]
fn a_life_of_years_is_refused_whoever_signed_it() {
    let why = refused(&with_claim("exp", json!(NOW + LIFE_SECONDS_MAX + 1)));
    assert_eq!(why, "the token lives too long");
    refused(&with_claim("exp", json!(u64::MAX)));
    refused(&with_claim("iat", json!(0)));
    // Expiry before issue.
    let mut bent = claims();
    (bent["iat"], bent["exp"]) = (json!(NOW + 50), json!(NOW + 10));
    refused(&forge(&header(), &bent));
    let made = sign(&key("k1", 1), SCENE, u64::MAX, &alice(), &Grants::default()).unwrap();
    assert_eq!(made.unwrap().seconds, LIFE_SECONDS_MAX);
}

#[test]
fn wrong_audience() {
    for audience in [json!("other"), json!(""), json!(["tercet"]), json!(["other", "tercet"])] {
        refused(&with_claim("aud", audience));
    }
    assert_eq!(refused(&with_claim("aud", json!("other"))), "the token is for another service");
}

#[test]
fn wrong_issuer() {
    assert_eq!(refused(&with_claim("iss", json!("cluster-2"))), "the token is of another cluster");
}

#[test]
fn each_claim_is_needed_has_its_type_and_is_there_once() {
    for claim in ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "access"] {
        let mut less = claims();
        less.as_object_mut().unwrap().remove(claim);
        refused(&forge(&header(), &less));
        refused(&with_claim(claim, json!({ "x": 1 })));
        // The first says one thing, the second another: whom would one believe?
        let text = claims().to_string();
        let twice = format!("{},\"{claim}\":{}}}", &text[..text.len() - 1], claims()[claim]);
        refused(&forge_text(&header().to_string(), &twice, &[1; 32]));
    }
    let twice = r#"{"alg":"HS256","typ":"JWT","kid":"k2","kid":"k1"}"#;
    refused(&forge_text(twice, &claims().to_string(), &[1; 32]));
    refused(&with_claim("admin", json!(true)));
    for number in ["1e400", "-1", "1.5", "18446744073709551616"] {
        let text = claims().to_string().replace(&format!("{}", NOW + 300), number);
        refused(&forge_text(&header().to_string(), &text, &[1; 32]));
    }
}

#[test]
fn a_subject_or_an_access_entry_that_means_nothing() {
    for subject in ["", "alice", "user:", "root:x"] {
        refused(&with_claim("sub", json!(subject)));
    }
    for access in [
        json!([{ "type": "repository", "name": "../etc", "actions": ["pull"] }]),
        json!([{ "type": "repository", "name": "a", "actions": ["*"] }]),
        json!([{ "type": "repository", "name": "a", "actions": ["admin"] }]),
        json!([{ "type": "registry", "name": "other", "actions": ["*"] }]),
        json!([{ "type": "repository", "name": "a", "actions": ["pull"], "class": "image" }]),
        json!([null]),
    ] {
        refused(&with_claim("access", access));
    }
}

#[test]
fn a_huge_token_is_refused_by_its_length() {
    for huge in [
        "a".repeat(TOKEN_BYTES_MAX + 1),
        ".".repeat(10 << 20),
        forge(&header(), &json!({ "x": "a".repeat(TOKEN_BYTES_MAX) })),
    ] {
        assert_eq!(key_id(&huge), Err(Refusal("the token is too long")));
        refused(&huge);
    }
    // A header that is most of the token is not decoded.
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    refused(&forge_text(&deep, "{}", &[1; 32]));
}

#[test]
fn too_many_grants_make_no_token_instead_of_one_that_nobody_accepts() {
    let name = |number: usize| format!("{}/{number}", "a".repeat(200)).parse().unwrap();
    let many = Grants {
        repositories: (0..100)
            .map(|number| Grant { repository: name(number), actions: Actions::ALL })
            .collect(),
        catalog: false,
    };
    assert_eq!(sign(&key("k1", 1), SCENE, 300, &alice(), &many).unwrap(), None);
}

#[test]
fn truncated_and_bent_at_every_place() {
    let token = good();
    for length in 0..token.len() {
        refused(&token[..length]);
    }
    let bytes = token.as_bytes();
    for place in 0..bytes.len() {
        let mut bent = bytes.to_vec();
        bent[place] = if bent[place] == b'A' { b'B' } else { b'A' };
        refused(&String::from_utf8(bent).unwrap());
    }
    for junk in [format!("{token}A"), format!("{token}="), format!(" {token}"), format!("{token}.")]
    {
        refused(&junk);
    }
    for junk in ["", ".", "..", "...", "a.b.c", "\u{e9}.\u{e9}.\u{e9}", "eyJ.eyJ.eyJ"] {
        refused(junk);
    }
}
