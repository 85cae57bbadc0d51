//! Forged tokens, over HTTP. Each form is a unit test of `src/auth/token`; here the question is whether
//! the whole replica refuses them, and goes on.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::replica::{HANG, Replica, SERVICE, Setup};

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn forge(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

#[tokio::test]
async fn forged_tokens_are_401_and_say_invalid_token() {
    let replica = Replica::start(Setup::default()).await;
    let good = replica.token("bob", "builder", &["repository:shared/app:pull"]).await;
    let (header, claims) = (part(&good, 0), part(&good, 1));
    assert_eq!(header["alg"], "HS256");
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("user:bob"), &json!(SERVICE)));
    let mut alice = claims.clone();
    alice["sub"] = json!("user:alice");
    let kid = header["kid"].as_str().unwrap().to_owned();
    let issuer = claims["iss"].as_str().unwrap();
    let with = |field: &str, value: Value| {
        let mut header = header.clone();
        header[field] = value;
        header
    };
    let own = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([9; 32]), "kid": kid });
    let none = forge(&with("alg", json!("none")), &alice, b"");
    let forged = [
        format!("{}.", none.rsplit_once('.').unwrap().0),
        none,
        forge(&header, &alice, kid.as_bytes()),
        forge(&header, &alice, issuer.as_bytes()),
        forge(&header, &alice, SERVICE.as_bytes()),
        forge(&header, &alice, b""),
        forge(&with("jwk", own), &alice, &[9; 32]),
        forge(&with("kid", json!("0123456789abcdef")), &alice, &[9; 32]),
        forge(&with("alg", json!("RS256")), &alice, kid.as_bytes()),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        "x".repeat(7000),
        "junk".to_owned(),
    ];
    for token in forged {
        let refused = replica.log_in_with(&token).await;
        assert_eq!(refused.status, 401, "{token}: {refused:?}");
        assert!(refused.challenge.contains("error=\"invalid_token\""), "{refused:?}");
    }
    assert_eq!(replica.log_in_with(&good).await.status, 200);
}

#[tokio::test]
async fn many_tokens_of_unknown_keys_do_not_keep_a_good_one_waiting() {
    let replica = Replica::start(Setup::default()).await;
    let good = replica.token("bob", "builder", &[]).await;
    let (header, claims) = (part(&good, 0), part(&good, 1));
    let began = Instant::now();
    let junk = (0..200).map(|number| {
        let mut header = header.clone();
        header["kid"] = json!(format!("unknown{number}"));
        let token = forge(&header, &claims, &[1; 32]);
        let replica = &replica;
        async move { replica.log_in_with(&token).await.status }
    });
    let statuses = futures_util::future::join_all(junk).await;
    // Few are looked for at a time; the others are told to come again, not that they are wrong.
    assert!(statuses.iter().all(|status| [401, 503].contains(&status.as_u16())), "{statuses:?}");
    assert!(statuses.iter().any(|status| *status == 401), "{statuses:?}");
    assert_eq!(replica.log_in_with(&good).await.status, 200);
    assert!(began.elapsed() < HANG);
}
