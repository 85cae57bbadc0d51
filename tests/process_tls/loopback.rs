//! Without rules the registry is for this machine only.

use tokio::net::TcpStream;

use crate::process::{Replica, plain};

const RULE: &str =
    "[[access.rules]]\nsubject = \"anonymous\"\nrepositories = [\"**\"]\nactions = [\"*\"]\n";

/// A replica that is told to listen everywhere, and the two addresses that show whether it does:
/// only a socket on all addresses, or on the second, answers at the second.
async fn everywhere(rest: &str) -> (Replica, String, String, String) {
    let mut replica = Replica::new();
    let port = replica.registry.rsplit(':').next().unwrap().to_owned();
    replica.start(&format!("[registry]\nlisten = \"0.0.0.0:{port}\"\n{rest}"));
    let ready = replica.ready().await;
    (replica, format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}"), ready)
}

#[tokio::test]
async fn without_rules_it_stays_on_loopback_and_says_why() {
    let (replica, own, elsewhere, ready) = everywhere("").await;
    let answer = plain().get(format!("http://{own}/v2/")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(TcpStream::connect(&elsewhere).await.is_err());
    for told in [replica.log(), ready] {
        assert!(told.contains(&own) && told.contains("[[access.rules]]"), "{told}");
    }
}

#[tokio::test]
async fn with_rules_it_listens_where_it_is_told_and_warns_of_plain_http() {
    let (replica, _, elsewhere, ready) = everywhere(RULE).await;
    let answer = plain().get(format!("http://{elsewhere}/v2/")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(ready, "ready\n");
    assert!(replica.log().contains("set registry.tls"), "{}", replica.log());
}
