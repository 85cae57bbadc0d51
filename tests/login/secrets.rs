//! No log at any level holds a password, a token or a hash.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::kubernetes::{TOKEN, api_server, setup};
use crate::replica::{Folder, Replica, Setup, answer, hash};

#[tokio::test]
async fn a_trace_log_holds_no_secret() {
    let aside = Folder::new();
    let (_workers, _status) = api_server(&aside).await;
    let (users, robots) = (hash("wonderland-password"), hash("robot-secret"));
    let mut setup = Setup {
        htpasswd: format!("alice:{users}\n"),
        // Every dependency too, also those that are quiet by default.
        log_level: "trace,hyper=trace,h2=trace,hyper_util=trace,kube=trace,kube_client=trace,rustls=trace,reqwest=trace",
        ..setup(&aside)
    };
    setup.access += &format!("[[access.robots]]\nname = \"ci\"\nsecret_bcrypt = \"{robots}\"\n");
    let replica = Replica::start(setup).await;
    let wrong = "a-wrong-password-of-alice";
    assert_eq!(replica.log_in("alice", "wonderland-password").await.status, 200);
    assert_eq!(replica.log_in("alice", wrong).await.status, 401);
    assert_eq!(replica.log_in("robot:ci", "robot-secret").await.status, 200);
    assert_eq!(replica.log_in("serviceaccount", TOKEN).await.status, 200);
    let token = replica.token("alice", "wonderland-password", &["repository:a:pull"]).await;
    assert_eq!(replica.log_in_with(&token).await.status, 200);
    let bent = format!("{token}x");
    assert_eq!(replica.log_in_with(&bent).await.status, 401);
    let form = "grant_type=password&username=alice&password=wonderland-password";
    assert_eq!(answer(replica.request("POST", "/token").body(form)).await.status, 200);
    let in_query = "/token?scope=repository:a:pull&password=wonderland-password";
    assert_eq!(answer(replica.get(in_query)).await.status, 200);

    // HTTP/2 has a log of its own.
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let request = http2.get(format!("http://{}/v2/", replica.folder.registry));
    let password = "wonderland-password";
    assert_eq!(answer(request.basic_auth("alice", Some(password))).await.status, 200);

    let log = replica.log();
    assert!(log.contains("\"TRACE\"") && log.contains("tercet::audit"), "not that talkative");
    let basic = STANDARD.encode("alice:wonderland-password");
    let signature = token.rsplit_once('.').unwrap().1;
    for secret in [
        "wonderland-password",
        wrong,
        "robot-secret",
        TOKEN,
        &token,
        signature,
        &basic,
        &users,
        &robots,
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "the log holds {secret}");
    }
}
