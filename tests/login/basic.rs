//! A user name and a password, directly.

use crate::replica::{Replica, Setup, answer, line};

#[tokio::test]
async fn a_right_password_is_let_in_and_every_other_is_not() {
    let long = "x".repeat(80);
    let mut setup = Setup::default();
    // bcrypt looks at 72 bytes: this hash is also that of every longer password.
    setup.htpasswd += &line("carol", &long);
    let replica = Replica::start(setup).await;
    let none = answer(replica.get("/v2/")).await;
    assert_eq!(none.status, 401);
    let realm = format!("Bearer realm=\"http://{}/token\"", replica.folder.registry);
    assert!(none.challenge.starts_with(&realm), "{none:?}");

    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200);
    assert_eq!(replica.log_in("alice", "wonderland").await.status, 200, "remembered");
    let wrong = replica.log_in("alice", "Wonderland").await;
    let unknown = replica.log_in("nobody", "wonderland").await;
    assert_eq!((wrong.status.as_u16(), unknown.status.as_u16()), (401, 401));
    // Nothing tells whether the user exists.
    assert_eq!(wrong.body, unknown.body);
    assert_eq!(wrong.challenge, unknown.challenge);
    let cut = replica.log_in("carol", &long).await;
    assert_eq!(cut.status, 401, "{cut:?}");

    assert_eq!(replica.metric("tercet_logins_total{method=\"basic\",result=\"ok\"}").await, 2);
    let refused = "tercet_logins_total{method=\"basic\",result=\"refused\"}";
    assert_eq!(replica.metric(refused).await, 3);
}

#[tokio::test]
async fn a_header_that_is_not_understood_is_refused_even_where_anonymous_would_do() {
    let replica = Replica::start(Setup::default()).await;
    let public = "/v2/public/app/tags/list";
    assert_eq!(answer(replica.get(public)).await.status, 404, "anonymous may look");
    for header in [
        "Basic",
        "Basic !!!",
        "Basic YWxpY2U=",
        "Digest username=\"alice\"",
        "Bearer ",
        &format!("Basic {}", "A".repeat(9000)),
    ] {
        let refused = answer(replica.get(public).header("authorization", header)).await;
        assert_eq!(refused.status, 401, "{header}: {refused:?}");
    }
    let twice = replica.get("/v2/").basic_auth("alice", Some("wonderland"));
    let twice = answer(twice.header("authorization", "Basic Ym9iOmJ1aWxkZXI=")).await;
    assert_eq!(twice.status, 401, "{twice:?}");
}
