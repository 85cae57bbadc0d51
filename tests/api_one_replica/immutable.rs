//! Tags that a rule keeps where they are.

use axum::body::Body;
use axum::http::StatusCode;
use tercet::config::{Config, ImmutableTags};

use crate::support::{Answer, Replica, image, replica_with};

async fn with_rule() -> Replica {
    let mut config = Config::default();
    config.access.immutable_tags = vec![ImmutableTags {
        name: "releases".to_owned(),
        repositories: vec!["prod/**".parse().unwrap()],
        tags: vec!["v*".parse().unwrap()],
    }];
    replica_with(config).await
}

fn refused_by_rule(answer: &Answer, current: &str) {
    assert_eq!(answer.refused(), (409, "DENIED".to_owned()));
    assert_eq!(answer.header("etag"), format!("\"{current}\""));
    let message = answer.json()["errors"][0]["message"].to_string();
    for said in ["v1", "prod/app", "releases", current] {
        assert!(message.contains(said), "{said} is not in {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immutable_tag_stays_where_it_is() {
    let replica = with_rule().await;
    let config = replica.push_blob("prod/app", b"{}").await;
    let layer = replica.push_blob("prod/app", b"layer").await;
    let (first, second) = (image(&config, &config, 2), image(&config, &layer, 5));
    let pushed = replica.push_manifest("prod/app", "v1", &first).await;
    assert_eq!(pushed.status, StatusCode::CREATED);
    let current = pushed.header("docker-content-digest").to_owned();
    // The same once more is what a client does whose answer was lost.
    let again = replica.push_manifest("prod/app", "v1", &first).await;
    assert_eq!(again.status, StatusCode::CREATED);

    refused_by_rule(&replica.push_manifest("prod/app", "v1", &second).await, &current);
    let with_tags = replica.push_manifest("prod/app", "latest?tag=v1", &second).await;
    refused_by_rule(&with_tags, &current);
    for reference in ["v1", &current] {
        let path = format!("/v2/prod/app/manifests/{reference}");
        let answer = replica.send("DELETE", &path, &[], Body::empty()).await;
        refused_by_rule(&answer, &current);
    }
    let kept = replica.get("/v2/prod/app/manifests/v1").await;
    assert_eq!(kept.header("docker-content-digest"), current);
    assert_eq!(
        replica.get("/v2/prod/app/manifests/latest").await.status,
        StatusCode::NOT_FOUND,
        "of a refused push nothing is left"
    );

    // What no rule covers moves as ever.
    for manifest in [&first, &second] {
        let moved = replica.push_manifest("prod/app", "latest", manifest).await;
        assert_eq!(moved.status, StatusCode::CREATED);
    }
    let tag = "/v2/prod/app/manifests/latest";
    let deleted = replica.send("DELETE", tag, &[], Body::empty()).await;
    assert_eq!(deleted.status, StatusCode::ACCEPTED);
    replica.consensus.shutdown().await;
}
