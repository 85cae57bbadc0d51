//! A replica that lacks a blob, and peers of all kinds.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt, stream};

use super::*;
use crate::peer::FetchError;
use crate::peer::placement::{placement_key, preference};

const LARGE: usize = 3 * 1024 * 1024 + 17;
const SMALL: usize = 10_000;

/// How a peer misbehaves.
#[derive(Clone, Copy, Debug)]
enum Vice {
    /// Breaks the connection after half of what it announced.
    Cut,
    /// Sends half and then nothing, with the connection open.
    Stall,
    /// Sends the right number of wrong bytes.
    Corrupt,
    /// Announces and sends fewer bytes.
    Short,
    /// Announces and sends more bytes.
    Long,
}

async fn misbehave(State((vice, content)): State<(Vice, Bytes)>, headers: HeaderMap) -> Response {
    assert!(!headers.contains_key(header::RANGE), "a bad peer is not asked to go on");
    let half = content.slice(..content.len() / 2);
    let (length, body) = match vice {
        Vice::Cut => {
            let cut = stream::iter([Ok(half), Err(std::io::Error::other("killed"))]);
            (content.len(), Body::from_stream(cut))
        }
        Vice::Stall => {
            let first = stream::iter([Ok::<_, std::io::Error>(half)]);
            (content.len(), Body::from_stream(first.chain(stream::pending())))
        }
        Vice::Corrupt => {
            let mut wrong = content.to_vec();
            wrong[content.len() / 3] ^= 1;
            (content.len(), Body::from(wrong))
        }
        Vice::Short => (half.len(), Body::from(half)),
        Vice::Long => {
            let mut long = content.to_vec();
            long.push(0);
            (long.len(), Body::from(long))
        }
    };
    (StatusCode::OK, [(header::CONTENT_LENGTH, length)], body).into_response()
}

/// A bad peer that is asked first, and a good one that is asked next.
async fn bad_and_good(vice: Vice, content: &Bytes) -> (Vec<Peer>, Replica) {
    let key = placement_key(&digest(content));
    let route = get(misbehave).with_state((vice, content.clone()));
    let (address, _) = serve(Router::new().route("/peer/blobs/{digest}", route)).await;
    let good = Replica::start("good", 3).await;
    put(&good.blobs, content).await;
    let bad = (0..)
        .map(|i| peer(&format!("bad-{i}"), 2, address))
        .find(|bad| preference(&[bad.clone(), good.peer.clone()], &key)[0] == *bad)
        .unwrap();
    (vec![bad, good.peer.clone()], good)
}

#[tokio::test]
async fn a_stream_goes_on_from_another_peer_when_the_first_dies_or_stalls() {
    for vice in [Vice::Cut, Vice::Stall] {
        let content = content(LARGE);
        let (peers, good) = bad_and_good(vice, &content).await;
        let (_dir, blobs) = store();
        let fetcher = fetcher(blobs.clone(), peers);
        let stream = fetcher.open(&digest(&content), LARGE as u64, None).await.unwrap();
        assert!(collect(stream).await.unwrap() == content, "{vice:?}");
        until_held(&blobs, &digest(&content), LARGE).await;
        // Each byte came once: the second peer was asked for the rest only, and the disk was served
        // by the same stream.
        assert_eq!(fetcher.parts.metrics.peer_bytes_received.get(), LARGE as u64, "{vice:?}");
        drop(good);
    }
}

#[tokio::test]
async fn a_peer_with_another_size_is_passed_over() {
    for vice in [Vice::Short, Vice::Long] {
        let content = content(LARGE);
        let (peers, _good) = bad_and_good(vice, &content).await;
        let (_dir, blobs) = store();
        let stream =
            fetcher(blobs, peers).open(&digest(&content), LARGE as u64, None).await.unwrap();
        assert!(collect(stream).await.unwrap() == content, "{vice:?}");
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_completed_and_never_kept() {
    let content = content(LARGE);
    let (peers, _good) = bad_and_good(Vice::Corrupt, &content).await;
    let (_dir, blobs) = store();
    // Only the bad one.
    let lonely = fetcher(blobs.clone(), peers[..1].to_vec());
    let mut stream = lonely.open(&digest(&content), LARGE as u64, None).await.unwrap();
    let mut received = 0;
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(chunk) => received += chunk.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, FetchError::Corrupt { .. }), "{error}");
    assert!(received < LARGE);
    until("the attempt for the disk to end", async || {
        !lonely.parts.workers.running().contains_key("keep-blob")
    })
    .await;
    assert!(lonely.keep(&digest(&content), LARGE as u64).await.is_err());
    assert_eq!(blobs.size_of(&digest(&content)).await.unwrap(), None);
}

#[tokio::test]
async fn another_peer_is_tried_for_the_disk_when_the_first_sends_wrong_bytes() {
    let content = content(LARGE);
    let (peers, _good) = bad_and_good(Vice::Corrupt, &content).await;
    let (_dir, blobs) = store();
    fetcher(blobs.clone(), peers).keep(&digest(&content), LARGE as u64).await.unwrap();
    assert_eq!(blobs.size_of(&digest(&content)).await.unwrap(), Some(LARGE as u64));
}

#[tokio::test]
async fn the_client_does_not_notice_wrong_bytes_of_a_small_blob() {
    let content = content(SMALL);
    let (peers, _good) = bad_and_good(Vice::Corrupt, &content).await;
    let (_dir, blobs) = store();
    let stream =
        fetcher(blobs.clone(), peers).open(&digest(&content), SMALL as u64, None).await.unwrap();
    assert!(collect(stream).await.unwrap() == content);
    until_held(&blobs, &digest(&content), SMALL).await;
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_the_disk() {
    let content = content(LARGE);
    let good = Replica::start("good", 3).await;
    put(&good.blobs, &content).await;
    let (_dir, blobs) = store();
    let fetcher = fetcher(blobs.clone(), vec![good.peer.clone()]);
    let mut stream = fetcher.open(&digest(&content), LARGE as u64, None).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    until_held(&blobs, &digest(&content), LARGE).await;
}

#[tokio::test]
async fn many_at_once_get_the_same_bytes() {
    let content = content(LARGE);
    let good = Replica::start("good", 3).await;
    put(&good.blobs, &content).await;
    let (_dir, blobs) = store();
    let fetcher = fetcher(blobs.clone(), vec![good.peer.clone()]);
    let digest = digest(&content);
    let all = (0..8).map(|_| async {
        let stream = fetcher.open(&digest, LARGE as u64, None).await.unwrap();
        collect(stream).await.unwrap()
    });
    for received in futures_util::future::join_all(all).await {
        assert!(received == content);
    }
    until_held(&blobs, &digest, LARGE).await;
}

#[tokio::test]
async fn a_part_is_passed_on() {
    let content = content(LARGE);
    let good = Replica::start("good", 3).await;
    put(&good.blobs, &content).await;
    let (_dir, blobs) = store();
    let fetcher = fetcher(blobs, vec![good.peer.clone()]);
    let range = 1_000_000..2_000_001;
    let stream = fetcher.open(&digest(&content), LARGE as u64, Some(range.clone())).await.unwrap();
    let range = range.start as usize..range.end as usize;
    assert!(collect(stream).await.unwrap() == content[range]);
}

#[tokio::test]
async fn a_blob_that_nobody_has_is_told_from_peers_that_do_not_answer() {
    let content = content(LARGE);
    let lacking = Replica::start("lacking", 3).await;
    let (_dir, blobs) = store();
    let dead = nobody("dead", 4).await;
    for size in [SMALL, LARGE] {
        let ask = async |peers: Vec<Peer>| {
            let fetcher = fetcher(blobs.clone(), peers);
            fetcher.open(&digest(&content), size as u64, None).await.err().unwrap()
        };
        let error = ask(vec![lacking.peer.clone()]).await;
        assert!(matches!(error, FetchError::Nowhere { .. }), "{error}");
        let error = ask(vec![lacking.peer.clone(), dead.clone()]).await;
        assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let empty = Bytes::new();
    let good = Replica::start("good", 3).await;
    put(&good.blobs, &empty).await;
    let (_dir, blobs) = store();
    let fetcher = fetcher(blobs.clone(), vec![good.peer.clone()]);
    let stream = fetcher.open(&digest(&empty), 0, None).await.unwrap();
    assert!(collect(stream).await.unwrap().is_empty());
    until_held(&blobs, &digest(&empty), 0).await;
}

#[tokio::test]
async fn a_whole_blob_is_pushed_once_verified() {
    let content = content(LARGE);
    let good = Replica::start("good", 3).await;
    let client = client(1);
    let body = |bytes: Bytes| {
        let chunks: Vec<_> = bytes.chunks(100_000).map(Bytes::copy_from_slice).map(Ok).collect();
        stream::iter(chunks as Vec<Result<Bytes, std::io::Error>>)
    };
    let digest = digest(&content);
    let mut wrong = content.to_vec();
    wrong[5] ^= 1;
    let size = LARGE as u64;
    let refused = client.push_blob(&good.peer, &digest, size, body(wrong.into())).await;
    assert_eq!(refused.unwrap_err().status(), Some(422));
    assert_eq!(client.has_blob(&good.peer, &digest).await.unwrap(), None);
    client.push_blob(&good.peer, &digest, size, body(content.clone())).await.unwrap();
    assert_eq!(client.has_blob(&good.peer, &digest).await.unwrap(), Some(size));
    // A second time is no error.
    client.push_blob(&good.peer, &digest, size, body(content.clone())).await.unwrap();
}
