//! Who is let in.

use super::*;
use crate::peer::PeerTransport;
use tercet_raft::{RpcKind, Target, Transport, TransportError};

#[tokio::test]
async fn another_cluster_and_another_node_are_refused() {
    let replica = Replica::start("one", 7).await;
    let digest = digest(b"x");

    let stranger = client(9);
    let metrics = Arc::new(Metrics::new().unwrap());
    let other = Client::new(ClientOptions { tls: None, stall: STALL, metrics }).unwrap();
    other.set_identity("ffffffffffffffffffffffffffffffff", 9);
    let error = other.has_blob(&replica.peer, &digest).await.unwrap_err();
    assert_eq!(error.status(), Some(409), "{error}");

    let mut replaced = replica.peer.clone();
    replaced.node_id = 8;
    let error = stranger.has_blob(&replaced, &digest).await.unwrap_err();
    assert_eq!(error.status(), Some(421), "{error}");

    assert_eq!(stranger.has_blob(&replica.peer, &digest).await.unwrap(), None);
}

#[tokio::test]
async fn a_replica_without_identity_says_hello_and_nothing_else() {
    let (_dir, blobs) = store();
    let hello = Hello { name: "new".to_owned(), cluster_id: None, node_id: None, feature_level: 2 };
    let state = PeerState::new(hello.clone(), blobs, 8);
    let (address, _server) = serve(router(state.clone())).await;
    let new = peer("new", 5, address);
    let transport = PeerTransport::new(client(1));
    assert_eq!(transport.hello(&new.address, PATIENCE).await.unwrap(), hello);
    let error = client(1).has_blob(&new, &digest(b"x")).await.unwrap_err();
    assert_eq!(error.status(), Some(503), "{error}");

    let hello = Hello { cluster_id: Some(CLUSTER.to_owned()), node_id: Some(5), ..hello };
    state.set_hello(hello.clone());
    assert_eq!(transport.hello(&new.address, PATIENCE).await.unwrap(), hello);
    assert_eq!(client(1).has_blob(&new, &digest(b"x")).await.unwrap(), None);
}

#[tokio::test]
async fn raft_messages_say_whether_they_were_sent() {
    let transport = PeerTransport::new(client(1));
    let target = |peer: &Peer| Target {
        node_id: peer.node_id,
        name: peer.name.clone(),
        address: peer.address.clone(),
    };
    let call = async |peer: &Peer| {
        let target = target(peer);
        transport.call(&target, RpcKind::Append, Bytes::new(), PATIENCE).await.unwrap_err()
    };
    let dead = nobody("dead", 4).await;
    let error = call(&dead).await;
    assert!(matches!(error, TransportError::NotSent(_)), "{error}");

    // Consensus is not attached yet.
    let starting = Replica::start("starting", 7).await;
    let error = call(&starting.peer).await;
    assert!(matches!(error, TransportError::Rejected { status: 503, .. }), "{error}");

    // Accepts and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = peer("silent", 6, listener.local_addr().unwrap());
    let error = transport
        .call(&target(&silent), RpcKind::Vote, Bytes::new(), Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::TimedOut(_)), "{error}");
}

#[tokio::test]
async fn plain_http_does_not_leave_the_machine() {
    let elsewhere = Peer::at("elsewhere", 3, "http://192.0.2.1:5001");
    let error = client(1).has_blob(&elsewhere, &digest(b"x")).await.unwrap_err().to_string();
    assert!(error.contains("tercet certs new"), "{error}");
}

#[tokio::test]
async fn streams_are_bounded() {
    let (_dir, blobs) = store();
    let content = content(100_000);
    let digest = put(&blobs, &content).await;
    let hello = Hello {
        name: "full".to_owned(),
        cluster_id: Some(CLUSTER.to_owned()),
        node_id: Some(5),
        feature_level: 2,
    };
    let (address, _server) = serve(router(PeerState::new(hello, blobs, 0))).await;
    let full = peer("full", 5, address);
    let error = client(1).fetch_blob(&full, &digest, 100_000, None).await.unwrap_err();
    assert_eq!(error.status(), Some(503), "{error}");
}
