//! The peer listener: what this replica does for the others.
//!
//! It answers from the moment the process listens: hello first, Raft and clients' forwarded
//! requests once they are attached. Blob routes look at the local disk only, need no Raft, and never
//! ask a third replica, so they can neither loop nor wait for a quorum.

mod blobs;
mod confirm;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod raft;
mod sessions;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router, middleware};
use tercet_raft::{Consensus, Hello, Invitation, NodeId};
use tercet_storage::{BlobStore, Digest};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt;

use super::held::HeldSessions;
use super::wire::{FORWARD_PREFIX, PeerStatus, RPC_BYTES_MAX, SENDER_HEADER};
use crate::server::RemoteAddress;
use gate::Refusal;

/// In the extensions of a request that another replica passed on: it is answered here or refused,
/// never passed on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// The replica that the client spoke to.
    pub by: NodeId,
}

/// What the routes work with. Clones share it.
#[derive(Clone)]
pub struct PeerState {
    inner: Arc<Inner>,
}

struct Inner {
    hello: ArcSwap<Hello>,
    blobs: BlobStore,
    held: HeldSessions,
    streams: Arc<Semaphore>,
    consensus: OnceLock<Consensus>,
    registry: OnceLock<Router>,
    admin: OnceLock<Router>,
    status: OnceLock<StatusSource>,
    placed_here: OnceLock<PlacedHere>,
    /// The cluster that an operator has told this replica to join.
    invited: watch::Sender<Option<Invitation>>,
}

/// Whether a blob is placed on this replica.
type PlacedHere = Box<dyn Fn(&Digest) -> bool + Send + Sync>;
type StatusSource = Box<dyn Fn() -> PeerStatus + Send + Sync>;

impl std::fmt::Debug for PeerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerState").field("hello", &self.inner.hello.load()).finish_non_exhaustive()
    }
}

impl PeerState {
    /// A listener that can say hello and serve blobs, at most `streams_max` at a time
    /// (`limits.peer_streams_max`).
    #[must_use]
    pub fn new(hello: Hello, blobs: BlobStore, streams_max: usize) -> Self {
        let held = HeldSessions::new(blobs.clone());
        let state = Self {
            inner: Arc::new(Inner {
                hello: ArcSwap::from_pointee(hello.clone()),
                blobs,
                held,
                streams: Arc::new(Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS))),
                consensus: OnceLock::new(),
                registry: OnceLock::new(),
                admin: OnceLock::new(),
                status: OnceLock::new(),
                placed_here: OnceLock::new(),
                invited: watch::Sender::new(None),
            }),
        };
        state.set_hello(hello);
        state
    }

    /// Changes the answer to hello: on an empty disk the identity comes only with bootstrap.
    pub fn set_hello(&self, hello: Hello) {
        if let Some(node_id) = hello.node_id {
            self.inner.held.set_own(node_id);
        }
        self.inner.hello.store(Arc::new(hello));
    }

    /// From now on Raft's messages are answered. Only the first call counts.
    pub fn attach_consensus(&self, consensus: Consensus) {
        let _ = self.inner.consensus.set(consensus);
    }

    /// From now on requests that other replicas pass on are answered. Only the first call counts.
    pub fn attach_registry(&self, registry: Router) {
        let _ = self.inner.registry.set(registry);
    }

    /// From now on what operators ask is answered. Only the first call counts.
    pub fn attach_admin(&self, admin: Router) {
        let _ = self.inner.admin.set(admin);
    }

    /// From now on `GET /peer/status` is answered. Only the first call counts.
    pub fn attach_status(&self, status: impl Fn() -> PeerStatus + Send + Sync + 'static) {
        let _ = self.inner.status.set(Box::new(status));
    }

    /// From now on other replicas may ask which blobs this one surely holds; `placed_here` says which
    /// it is meant to. Only the first call counts.
    pub fn attach_placement(&self, placed_here: impl Fn(&Digest) -> bool + Send + Sync + 'static) {
        let _ = self.inner.placed_here.set(Box::new(placed_here));
    }

    /// Holds the invitation to a cluster, once one has come.
    #[must_use]
    pub fn invited(&self) -> watch::Receiver<Option<Invitation>> {
        self.inner.invited.subscribe()
    }

    /// The sessions held here for others.
    #[must_use]
    pub fn held(&self) -> &HeldSessions {
        &self.inner.held
    }

    /// A place among the blob streams, or a refusal: the peer then tries elsewhere.
    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.inner.streams)
            .try_acquire_owned()
            .map_err(|_| Refusal::busy("too many blob streams (limits.peer_streams_max)"))
    }
}

/// The routes of the peer listener.
pub fn router(state: PeerState) -> Router {
    let raft = Router::new()
        .route("/raft/snapshot", post(raft::snapshot))
        .route("/raft/{kind}", post(raft::rpc))
        .layer(DefaultBodyLimit::max(RPC_BYTES_MAX));
    Router::new()
        .route("/peer/hello", get(hello))
        .route("/peer/invite", post(invite))
        .route("/peer/status", get(status))
        .route("/peer/blobs/{digest}", get(blobs::read).head(blobs::head).post(blobs::push))
        .route("/peer/confirm", post(confirm::confirm))
        .route(
            "/peer/sessions/{id}",
            get(sessions::info)
                .post(sessions::create)
                .patch(sessions::append)
                .delete(sessions::delete),
        )
        .route("/peer/sessions/{id}/finish", post(sessions::finish))
        .route("/forward/{*path}", any(forwarded))
        .route("/admin/{*path}", any(administered))
        .merge(raft)
        .layer(middleware::from_fn_with_state(state.clone(), gate::check))
        .with_state(state)
}

async fn hello(State(state): State<PeerState>) -> Json<Hello> {
    Json(Hello::clone(&state.inner.hello.load()))
}

/// Takes an invitation while this replica belongs to no cluster. (One that does says so in its hello.)
async fn invite(
    State(state): State<PeerState>,
    Json(invitation): Json<Invitation>,
) -> Result<StatusCode, Refusal> {
    let hello = state.inner.hello.load();
    if hello.name != invitation.name {
        let message = format!("this replica is called `{}`", hello.name);
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, message));
    }
    match &hello.cluster_id {
        Some(cluster) if *cluster != invitation.cluster_id => {
            let message = format!("this replica belongs to cluster {cluster}");
            Err(Refusal::new(StatusCode::CONFLICT, message))
        }
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => {
            state.inner.invited.send_replace(Some(invitation));
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

async fn status(State(state): State<PeerState>) -> Result<Json<PeerStatus>, Refusal> {
    match state.inner.status.get() {
        Some(status) => Ok(Json(status())),
        None => Err(Refusal::starting()),
    }
}

/// Hands a client's request to the registry as if it had come in on its own listener.
async fn forwarded(State(state): State<PeerState>, request: Request) -> Result<Response, Refusal> {
    let Some(registry) = state.inner.registry.get() else { return Err(Refusal::starting()) };
    let (mut parts, body) = request.into_parts();
    // The path as the client wrote it: decoding it here would change what it means.
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let original = path.strip_prefix(FORWARD_PREFIX).unwrap_or(path);
    parts.uri = original
        .parse::<Uri>()
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let by = sender(&parts);
    // What the routing up to here left in the extensions is about another path.
    parts.extensions.clear();
    parts.extensions.insert(Forwarded { by });
    let request = Request::<Body>::from_parts(parts, body);
    Ok(registry.clone().oneshot(request).await.into_response())
}

/// Hands what an operator asks, here or through another replica, to the routes of `admin`.
async fn administered(
    State(state): State<PeerState>,
    request: Request,
) -> Result<Response, Refusal> {
    let Some(admin) = state.inner.admin.get() else { return Err(Refusal::starting()) };
    let (mut parts, body) = request.into_parts();
    let remote = parts.extensions.get::<RemoteAddress>().copied();
    parts.extensions.clear();
    if let Some(remote) = remote {
        parts.extensions.insert(remote);
    }
    // The command line is no replica and says 0.
    let by = sender(&parts);
    if by != 0 {
        parts.extensions.insert(Forwarded { by });
    }
    let request = Request::<Body>::from_parts(parts, body);
    Ok(admin.clone().oneshot(request).await.into_response())
}

fn sender(parts: &Parts) -> NodeId {
    let sender = parts.headers.get(SENDER_HEADER).and_then(|value| value.to_str().ok());
    sender.and_then(|sender| sender.parse().ok()).unwrap_or(0)
}
