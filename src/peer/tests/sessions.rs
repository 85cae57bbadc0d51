//! Copies of an upload on other holders.

use axum::body::Body;
use axum::http::StatusCode;
use axum::routing::{patch, post};
use futures_util::stream;
use tercet_storage::{RepositoryName, UploadId};
use tokio::sync::mpsc;

use super::*;
use crate::peer::{Claim, HeldError, PeerError, SessionReplicas, SessionReplicasOptions};

const CHUNK: usize = 200_000;

fn repository() -> RepositoryName {
    "library/test".parse().unwrap()
}

async fn open(id: UploadId, holders: &[&Peer]) -> SessionReplicas {
    SessionReplicas::open(SessionReplicasOptions {
        peers: client(1),
        workers: Workers::new(),
        metrics: Arc::new(Metrics::new().unwrap()),
        claim: Claim::first(id),
        repository: repository(),
        algorithm: Algorithm::Sha256,
        offset: 0,
        holders: holders.iter().map(|&holder| holder.clone()).collect(),
    })
    .await
}

fn live(replicas: &SessionReplicas) -> Vec<String> {
    replicas.live().map(|peer| peer.name.clone()).collect()
}

async fn uploads_left(replica: &Replica) -> usize {
    replica.blobs.list_uploads().await.unwrap().len()
}

#[tokio::test]
async fn every_holder_ends_with_the_blob() {
    let (a, b) = (Replica::start("a", 2).await, Replica::start("b", 3).await);
    let id = UploadId::new(1);
    let content = content(10 * CHUNK + 3);
    let mut replicas = open(id, &[&a.peer, &b.peer]).await;
    // Several PATCHes of several chunks, one of them larger than a queue.
    for part in content.chunks(4 * CHUNK) {
        for chunk in part.chunks(3 * CHUNK) {
            replicas.send(Bytes::copy_from_slice(chunk)).await;
        }
        replicas.end_patch().await;
    }
    let info = client(1).session(&a.peer, &id).await.unwrap().unwrap();
    assert_eq!((info.offset, info.repository), (content.len() as u64, repository()));

    let digest = digest(&content);
    let mut acknowledged = replicas.finish(&digest, content.len() as u64, 2).await;
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, [2, 3]);
    for replica in [&a, &b] {
        until_held(&replica.blobs, &digest, content.len()).await;
        assert_eq!(uploads_left(replica).await, 0);
    }
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing_anywhere() {
    let a = Replica::start("a", 2).await;
    let mut replicas = open(UploadId::new(1), &[&a.peer]).await;
    replicas.send(content(CHUNK)).await;
    let wrong = digest(b"something else");
    assert!(replicas.finish(&wrong, CHUNK as u64, 1).await.is_empty());
    assert_eq!(a.blobs.size_of(&wrong).await.unwrap(), None);
    until("no upload", async || uploads_left(&a).await == 0).await;
}

#[tokio::test]
async fn a_copy_with_another_size_is_refused_and_removed() {
    let a = Replica::start("a", 2).await;
    let mut replicas = open(UploadId::new(1), &[&a.peer]).await;
    let content = content(CHUNK);
    replicas.send(content.clone()).await;
    assert!(replicas.finish(&digest(&content), CHUNK as u64 + 1, 1).await.is_empty());
    until("no upload", async || uploads_left(&a).await == 0).await;
}

#[tokio::test]
async fn an_aborted_session_leaves_nothing() {
    let a = Replica::start("a", 2).await;
    let mut replicas = open(UploadId::new(1), &[&a.peer]).await;
    replicas.send(content(CHUNK)).await;
    replicas.end_patch().await;
    assert_eq!(uploads_left(&a).await, 1);
    replicas.abort().await;
    until("no upload", async || uploads_left(&a).await == 0).await;
}

/// Takes the session and then reads nothing.
async fn slow_holder(node_id: u64) -> Peer {
    async fn never(_unread: Body) -> StatusCode {
        std::future::pending().await
    }
    let router = Router::new()
        .route("/peer/sessions/{id}", post(|| async { StatusCode::CREATED }).merge(patch(never)));
    let (address, _) = serve(router).await;
    peer("slow", node_id, address)
}

#[tokio::test]
async fn a_holder_that_stalls_is_dropped_and_the_other_goes_on() {
    let good = Replica::start("good", 2).await;
    let slow = slow_holder(3).await;
    let content = content(200 * CHUNK);
    let mut replicas = open(UploadId::new(1), &[&good.peer, &slow]).await;
    let began = Instant::now();
    for chunk in content.chunks(CHUNK) {
        replicas.send(Bytes::copy_from_slice(chunk)).await;
    }
    replicas.end_patch().await;
    assert_eq!(live(&replicas), ["good"]);
    assert!(began.elapsed() < PATIENCE);
    let digest = digest(&content);
    assert_eq!(replicas.finish(&digest, content.len() as u64, 1).await, [2]);
}

#[tokio::test]
async fn a_holder_that_dies_is_dropped() {
    let (good, dead) = (Replica::start("good", 2).await, nobody("dead", 3).await);
    let content = content(3 * CHUNK);
    let mut replicas = open(UploadId::new(1), &[&good.peer, &dead]).await;
    replicas.send(content.slice(..CHUNK)).await;
    replicas.end_patch().await;
    assert_eq!(live(&replicas), ["good"]);
    replicas.send(content.slice(CHUNK..)).await;
    let digest = digest(&content);
    // The second is asked for and does not come: what there is is the answer.
    assert_eq!(replicas.finish(&digest, content.len() as u64, 2).await, [2]);
}

#[tokio::test]
async fn a_copy_ends_where_it_says() {
    let a = Replica::start("a", 2).await;
    let (client, id) = (client(1), UploadId::new(1));
    let body = || stream::iter([Ok::<_, std::io::Error>(content(CHUNK))]);
    let (repository, sha256) = (repository(), Algorithm::Sha256);
    client.create_session(&a.peer, &Claim::first(id), &repository, sha256, 0).await.unwrap();
    assert_eq!(
        client.append_session(&a.peer, &Claim::first(id), 0, body()).await.unwrap(),
        CHUNK as u64
    );
    for wrong in [0, CHUNK as u64 + 1] {
        let error =
            client.append_session(&a.peer, &Claim::first(id), wrong, body()).await.unwrap_err();
        assert!(matches!(error, PeerError::OtherOffset { offset, .. } if offset == CHUNK as u64));
    }
    // The owner came back with fewer bytes, then another one with more.
    client.create_session(&a.peer, &Claim::first(id), &repository, sha256, 5).await.unwrap();
    assert_eq!(client.session(&a.peer, &id).await.unwrap().unwrap().offset, 5);
    let error = client
        .create_session(&a.peer, &Claim::first(id), &repository, sha256, 6)
        .await
        .unwrap_err();
    assert!(matches!(error, PeerError::OtherOffset { offset: 5, .. }), "{error}");
    // Unknown ones.
    let other = UploadId::new(1);
    assert_eq!(client.session(&a.peer, &other).await.unwrap(), None);
    let error = client.append_session(&a.peer, &Claim::first(other), 0, body()).await.unwrap_err();
    assert_eq!(error.status(), Some(404));
    client.delete_session(&a.peer, &Claim::first(other)).await.unwrap();
    // Its own sessions are not for others to write.
    let own = UploadId::new(2);
    let error = client
        .create_session(&a.peer, &Claim::first(own), &repository, sha256, 0)
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(409));
}

#[tokio::test]
async fn a_body_that_breaks_off_keeps_what_came() {
    let a = Replica::start("a", 2).await;
    let (client, id) = (client(1), UploadId::new(1));
    client
        .create_session(&a.peer, &Claim::first(id), &repository(), Algorithm::Sha256, 0)
        .await
        .unwrap();
    let (pass, passed) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = stream::unfold(passed, |mut passed| async { Some((passed.recv().await?, passed)) });
    let feed = async {
        pass.send(Ok(content(CHUNK))).await.unwrap();
        until("the first bytes there", async || {
            client.session(&a.peer, &id).await.unwrap().unwrap().offset == CHUNK as u64
        })
        .await;
        pass.send(Err(std::io::Error::other("the client is gone"))).await.unwrap();
    };
    let claim = Claim::first(id);
    let (cut, ()) = tokio::join!(client.append_session(&a.peer, &claim, 0, Box::pin(body)), feed);
    assert!(cut.is_err());
    assert_eq!(client.session(&a.peer, &id).await.unwrap().unwrap().offset, CHUNK as u64);
    // And goes on from there.
    let more = stream::iter([Ok::<_, std::io::Error>(content(7))]);
    let end = client.append_session(&a.peer, &Claim::first(id), CHUNK as u64, more).await.unwrap();
    assert_eq!(end, CHUNK as u64 + 7);
}

#[tokio::test]
async fn a_session_is_adopted_under_the_hands_of_a_silent_owner() {
    let a = Replica::start("a", 2).await;
    let id = UploadId::new(1);
    let mut replicas = open(id, &[&a.peer]).await;
    replicas.send(content(CHUNK)).await;
    until("the bytes there", async || {
        client(1).session(&a.peer, &id).await.unwrap().is_some_and(|s| s.offset == CHUNK as u64)
    })
    .await;
    // The owner's request is still open.
    let file = a.state.held().take(&id).await.unwrap().unwrap();
    assert_eq!(file.offset(), CHUNK as u64);
    assert!(a.state.held().take(&UploadId::new(1)).await.unwrap().is_none());
    // The owner is told, and others see the session still.
    until("the owner to notice", async || live(&replicas).is_empty()).await;
    assert_eq!(client(1).session(&a.peer, &id).await.unwrap().unwrap().offset, CHUNK as u64);
    let late = stream::iter([Ok::<_, std::io::Error>(content(7))]);
    let error = a.state.held().append(&Claim::first(id), CHUNK as u64, late).await.unwrap_err();
    assert!(matches!(error, HeldError::Busy(_)), "{error}");
}

#[tokio::test]
async fn abandoned_sessions_are_removed() {
    let a = Replica::start("a", 2).await;
    let (client, id) = (client(1), UploadId::new(1));
    client
        .create_session(&a.peer, &Claim::first(id), &repository(), Algorithm::Sha256, 0)
        .await
        .unwrap();
    assert_eq!(a.state.held().reap(PATIENCE).await.unwrap(), 0);
    until("the session to be removed", async || {
        a.state.held().reap(Duration::from_millis(50)).await.unwrap() == 1
    })
    .await;
    assert_eq!(uploads_left(&a).await, 0);
    assert_eq!(a.state.held().open_count(), 0);
}

#[tokio::test]
async fn a_holder_takes_orders_from_whoever_took_the_session_over_last() {
    let a = Replica::start("a", 2).await;
    let (client, id) = (client(1), UploadId::new(1));
    let first = Claim::first(id);
    let later = Claim { id, fence: first.fence.taken_by(3) };
    let sha256 = Algorithm::Sha256;
    let body = || stream::iter([Ok::<_, std::io::Error>(content(CHUNK))]);
    client.create_session(&a.peer, &first, &repository(), sha256, 0).await.unwrap();
    client.append_session(&a.peer, &first, 0, body()).await.unwrap();
    client.create_session(&a.peer, &later, &repository(), sha256, CHUNK as u64).await.unwrap();

    let (end, digest) = (CHUNK as u64, digest(&content(CHUNK)));
    let refused = [
        client.create_session(&a.peer, &first, &repository(), sha256, 0).await,
        client.append_session(&a.peer, &first, end, body()).await.map(drop),
        client.finish_session(&a.peer, &first, &digest, end).await,
        client.delete_session(&a.peer, &first).await,
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().status(), Some(412));
    }
    let info = client.session(&a.peer, &id).await.unwrap().unwrap();
    assert_eq!((info.offset, info.fence), (end, later.fence));
    // Also after a restart, and whoever holds the copy then.
    let file = a.state.held().take(&id).await.unwrap().unwrap();
    assert_eq!(file.fence(), later.fence);
    drop(file);
    client.append_session(&a.peer, &later, end, body()).await.unwrap();
    client
        .finish_session(
            &a.peer,
            &later,
            &super::digest(&[content(CHUNK), content(CHUNK)].concat()),
            2 * end,
        )
        .await
        .unwrap();
}
