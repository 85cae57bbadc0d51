//! Requests of clients that another replica has to answer.

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::stream;

use super::*;
use crate::peer::{ForwardError, Forwarded};

/// Says what it was asked, and gives the body back.
async fn echo(
    Extension(forwarded): Extension<Forwarded>,
    request: Request<Body>,
) -> impl IntoResponse {
    let seen = format!("{} {}", request.method(), request.uri());
    let by = forwarded.by.to_string();
    (StatusCode::ACCEPTED, [("x-seen", seen), ("x-by", by)], request.into_body())
}

fn request(method: &str, uri: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

#[tokio::test]
async fn both_bodies_stream_and_the_path_stays_as_it_was() {
    let target = Replica::start("target", 2).await;
    target.state.attach_registry(Router::new().fallback(echo));
    let content = content(5_000_000);
    let chunks: Vec<Result<Bytes, std::io::Error>> =
        content.chunks(70_001).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let uri = "/v2/a/b%2fc/blobs/uploads/x?digest=sha256:0&_state=%20";
    let mut sent = request("PATCH", uri, Body::from_stream(stream::iter(chunks)));
    sent.headers_mut().insert("tercet-sender-node", "666".parse().unwrap());
    let response = client(1).forward(&target.peer, sent).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()["x-seen"], format!("PATCH {uri}"));
    assert_eq!(response.headers()["x-by"], "1");
    assert!(to_bytes(response.into_body(), 10_000_000).await.unwrap() == content);
}

#[tokio::test]
async fn a_request_without_a_body_has_none_there() {
    let target = Replica::start("target", 2).await;
    let router = Router::new().fallback(|request: Request<Body>| async move {
        let headers = request.headers();
        assert!(!headers.contains_key(header::TRANSFER_ENCODING));
        StatusCode::NO_CONTENT
    });
    target.state.attach_registry(router);
    for method in ["GET", "DELETE", "HEAD"] {
        let sent = request(method, "/v2/a/blobs/uploads/x", Body::empty());
        let response = client(1).forward(&target.peer, sent).await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_request_that_was_not_delivered_comes_back_whole() {
    let dead = nobody("dead", 2).await;
    let starting = Replica::start("starting", 3).await;
    let mut replaced = starting.peer.clone();
    replaced.node_id = 4;
    for (peer, body_must_return) in [(&dead, true), (&starting.peer, false), (&replaced, false)] {
        let sent = request("PATCH", "/v2/a/blobs/uploads/x", Body::from("all of it"));
        match client(1).forward(peer, sent).await.unwrap_err() {
            ForwardError::NotDelivered { request: Some(request), .. } => {
                assert_eq!(request.method(), "PATCH");
                let body = to_bytes(request.into_body(), 100).await.unwrap();
                assert_eq!(body, "all of it");
            }
            ForwardError::NotDelivered { request: None, .. } => assert!(!body_must_return),
            error @ ForwardError::Unknown { .. } => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_target_that_dies_half_way_may_have_done_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dying = peer("dying", 2, listener.local_addr().unwrap());
    let accept = async {
        let (socket, _) = listener.accept().await.unwrap();
        socket.readable().await.unwrap();
        drop(socket);
    };
    let sent = request("PUT", "/v2/a/blobs/uploads/x?digest=y", Body::from("all of it"));
    let client = client(1);
    let (result, ()) = tokio::join!(client.forward(&dying, sent), accept);
    assert!(matches!(result, Err(ForwardError::Unknown { .. })));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_completed() {
    let target = Replica::start("target", 2).await;
    let router = Router::new().fallback(|| async {
        let cut = stream::iter([Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("x"))]);
        ([(header::CONTENT_LENGTH, "8")], Body::from_stream(cut))
    });
    target.state.attach_registry(router);
    let sent = request("GET", "/v2/a/blobs/sha256:0", Body::empty());
    // Either there is no answer at all, or its body ends in an error.
    if let Ok(response) = client(1).forward(&target.peer, sent).await {
        assert!(to_bytes(response.into_body(), 100).await.is_err());
    }
}
