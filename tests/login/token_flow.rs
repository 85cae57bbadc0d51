//! The way of docker and containerd: 401, `/token`, again.

use serde_json::Value;

use crate::replica::{RULES, Replica, SERVICE, Setup, answer};

/// The parameters of a challenge.
fn parameter<'a>(challenge: &'a str, name: &str) -> &'a str {
    let (_, rest) = challenge.split_once(&format!("{name}=\"")).expect(challenge);
    rest.split_once('"').unwrap().0
}

#[tokio::test]
async fn a_client_follows_the_challenge_to_a_token_that_does() {
    let replica = Replica::start(Setup::default()).await;
    let path = "/v2/alice/app/blobs/uploads/";
    let refused = answer(replica.request("POST", path)).await;
    assert_eq!(refused.status, 401);
    let challenge = refused.challenge;
    assert_eq!(parameter(&challenge, "service"), SERVICE);
    assert_eq!(parameter(&challenge, "scope"), "repository:alice/app:pull,push");
    let realm = parameter(&challenge, "realm");
    assert_eq!(realm, format!("http://{}/token", replica.folder.registry));

    let path = realm.strip_prefix(&format!("http://{}", replica.folder.registry)).unwrap();
    let asked = format!(
        "{path}?account=alice&client_id=docker&offline_token=true&service={SERVICE}\
         &scope=repository%3Aalice%2Fapp%3Apull%2Cpush"
    );
    let given = answer(replica.get(&asked).basic_auth("alice", Some("wonderland"))).await;
    assert_eq!((given.status.as_u16(), given.cache_control.as_str()), (200, "no-store"));
    let json = given.json();
    let token = json["token"].as_str().unwrap();
    assert_eq!(json["access_token"], token);
    assert_eq!(json["expires_in"], 300);
    let issued: k8s_openapi::jiff::Timestamp = json["issued_at"].as_str().unwrap().parse().unwrap();
    let age = issued.duration_until(k8s_openapi::jiff::Timestamp::now());
    assert!(age.as_secs().abs() < 60, "{age:?}");

    assert_eq!(replica.push("alice/app", token).await.status, 202);
    assert_eq!(replica.log_in_with(token).await.status, 200);
    // It allows what it was asked for, and no more.
    let elsewhere = replica.push("alice/other", token).await;
    assert_eq!(elsewhere.status, 401);
    assert_eq!(parameter(&elsewhere.challenge, "error"), "insufficient_scope");
}

#[tokio::test]
async fn a_token_holds_what_was_asked_and_the_rules_allow() {
    let replica = Replica::start(Setup::default()).await;
    let scopes = ["repository:alice/app:pull,push", "repository:shared/app:pull"];
    let token = replica.token("bob", "builder", &scopes).await;
    assert_eq!(replica.pull("shared/app", &token).await.status, 404);
    assert_eq!(replica.push("shared/app", &token).await.status, 401, "not asked for");
    assert_eq!(replica.pull("alice/app", &token).await.status, 403, "no rule allows it");
    let star = replica.token("alice", "wonderland", &["repository:alice/app:*"]).await;
    assert_eq!(replica.push("alice/app", &star).await.status, 202);
    let catalog = replica.get("/v2/_catalog").bearer_auth(&star);
    assert_eq!(answer(catalog).await.status, 401, "not asked for");
    let listing = replica.token("alice", "wonderland", &["registry:catalog:*"]).await;
    assert_eq!(answer(replica.get("/v2/_catalog").bearer_auth(listing)).await.status, 200);
    // Nothing granted is no error: docker asks so when it logs in.
    let empty = replica.token("bob", "builder", &[]).await;
    assert_eq!(replica.log_in_with(&empty).await.status, 200);
}

#[tokio::test]
async fn anonymous_gets_a_token_for_what_everybody_may() {
    let replica = Replica::start(Setup::default()).await;
    let path = "/token?scope=repository:public/app:pull&scope=repository:alice/app:pull";
    let given = answer(replica.get(path)).await;
    assert_eq!(given.status, 200, "{given:?}");
    let token = given.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(replica.pull("public/app", &token).await.status, 404);
    assert_eq!(replica.pull("alice/app", &token).await.status, 401);
}

#[tokio::test]
async fn anonymous_who_may_pull_nothing_is_told_to_log_in_instead_of_an_empty_list() {
    let (alices, _) = RULES.split_once("[[access.rules]]\nsubject = \"auth").unwrap();
    for (rules, status) in [(alices, 401), (RULES, 200)] {
        let access = rules.to_owned();
        let replica = Replica::start(Setup { access, ..Setup::default() }).await;
        let given = answer(replica.get("/token?scope=registry:catalog:*")).await;
        let token = given.json()["token"].as_str().unwrap().to_owned();
        let list = answer(replica.get("/v2/_catalog").bearer_auth(token)).await;
        assert_eq!(list.status, status, "{list:?}");
    }
}

#[tokio::test]
async fn the_endpoint_refuses_what_it_has_to() {
    let replica = Replica::start(Setup::default()).await;
    let wrong = answer(replica.get("/token").basic_auth("alice", Some("no"))).await;
    assert_eq!(wrong.status, 401, "{wrong:?}");
    assert!(wrong.challenge.starts_with("Basic realm="), "{wrong:?}");
    assert_eq!(wrong.json()["errors"][0]["code"], "UNAUTHORIZED");
    let path = "/token?service=registry.elsewhere";
    let other = answer(replica.get(path).basic_auth("alice", Some("wonderland"))).await;
    assert_eq!(other.status, 400, "{other:?}");
    let many = format!("/token?scope={}", vec!["repository:a:pull"; 101].join("+"));
    assert_eq!(answer(replica.get(&many)).await.status, 400);
    for junk in ["/token?scope=junk", "/token?scope=repository:%2e%2e:pull&scope=:::", "/token?x"] {
        assert_eq!(answer(replica.get(junk)).await.status, 200, "{junk}");
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        let refused = answer(replica.request(method, "/token")).await;
        assert_eq!(refused.status, 405, "{method}");
    }
    let head = answer(replica.request("HEAD", "/token")).await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    // A token of little scope would otherwise become one of much.
    let little = replica.token("alice", "wonderland", &["repository:alice/app:pull"]).await;
    let more = replica.get("/token?scope=repository:alice/app:push").bearer_auth(little);
    assert_eq!(answer(more).await.status, 401);
}

#[tokio::test]
async fn the_form_of_oauth2_as_containerd_sends_it() {
    let replica = Replica::start(Setup {
        htpasswd: crate::replica::line("alice", "with space+plus&=é"),
        ..Setup::default()
    })
    .await;
    let post = |fields: &str| {
        let request = replica.request("POST", "/token").body(fields.to_owned());
        answer(request.header("content-type", "application/x-www-form-urlencoded"))
    };
    let scope = "scope=repository%3Aalice%2Fapp%3Apull%2Cpush+repository%3Ashared%2Fx%3Apull";
    let form = format!("client_id=containerd-client&service={SERVICE}&{scope}&grant_type=password");
    let given =
        post(&format!("{form}&username=alice&password=with+space%2Bplus%26%3D%C3%A9")).await;
    assert_eq!(given.status, 200, "{given:?}");
    let token = given.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(replica.push("alice/app", &token).await.status, 202);
    assert_eq!(replica.pull("shared/x", &token).await.status, 404);

    assert_eq!(post(&format!("{form}&username=alice&password=wrong")).await.status, 401);
    let oauth = async |fields: &str| {
        let refused = post(fields).await;
        (refused.status.as_u16(), refused.json()["error"].clone())
    };
    let refresh = "grant_type=refresh_token&refresh_token=x&service=registry.test";
    assert_eq!(oauth(refresh).await, (400, Value::from("unsupported_grant_type")));
    for incomplete in ["", "username=alice", "grant_type=password&username=alice"] {
        assert_eq!(oauth(incomplete).await, (400, Value::from("invalid_request")), "{incomplete}");
    }
    let other = format!("{form}&username=alice&password=x").replace(SERVICE, "elsewhere");
    assert_eq!(post(&other).await.status, 400);
    let huge = format!("{form}&username=alice&password={}", "x".repeat(64 * 1024));
    assert_eq!(post(&huge).await.status, 413);
}
