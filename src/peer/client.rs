//! Asks one peer: blobs, upload sessions, status. Raft's messages go through
//! [`PeerTransport`](super::PeerTransport), requests of clients through [`Client::forward`].

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use reqwest::{Method, RequestBuilder, StatusCode, header};
use tercet_raft::NodeId;
use tercet_storage::{Algorithm, Digest, RepositoryName, UploadId};

use super::call::{Call, SHORT_ANSWER};
use super::claim::Claim;
use super::directory::Peer;
use super::error::{PeerError, causes};
use super::tls::{PeerTls, TlsError, is_loopback, no_tls};
use super::wire::{self, BlobSize, Confirm, Confirmed, OffsetAnswer, PeerStatus, SessionInfo};
use crate::ops::Metrics;

/// A peer that does not take a connection by then is treated as gone.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Shorter than the idle timeout of any listener, so that this side closes first and a request is
/// not written into a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Idle connections kept per peer.
const POOL_IDLE_MAX: usize = 64;
/// A peer that reads a blob at less than this is as good as gone, bytes per second.
const SLOWEST_DISK: u64 = 100 * 1024 * 1024;
/// Most time for the head of a blob's answer: less than the 30 s that containerd waits.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// A finish hashes at worst all of the blob again and fsyncs it: this much, and a second per MiB.
const FINISH_BASE: Duration = Duration::from_secs(10);
/// How long a peer that did not answer is asked last.
const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// What a [`Client`] needs to know.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// This replica's TLS material; `None` for plain HTTP, which then goes to loopback only.
    pub tls: Option<PeerTls>,
    /// How long a stream may stand still (`limits.holder_stall_ms`).
    pub stall: Duration,
    /// Where bytes between peers are counted.
    pub metrics: Arc<Metrics>,
}

/// Speaks to the peer listeners of the other replicas. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// For Raft alone: heartbeats and votes never wait for a connection behind blob streams.
    raft: reqwest::Client,
    bulk: reqwest::Client,
    encrypted: bool,
    stall: Duration,
    metrics: Arc<Metrics>,
    /// Known once this replica has an identity.
    identity: OnceLock<(String, NodeId)>,
    /// Peers that lately did not answer, and when that was. Never longer than the member list's
    /// history: entries are dropped when they are old.
    suspects: Mutex<HashMap<NodeId, Instant>>,
}

/// A blob, or a part of one, on its way from a peer.
pub struct PeerBlob {
    /// Size of the whole blob in bytes.
    pub size: u64,
    /// The bytes, exactly as many as were asked for or an error. Not verified.
    pub stream: BoxStream<'static, Result<Bytes, PeerError>>,
}

impl std::fmt::Debug for PeerBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerBlob").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Client {
    /// A client without an identity: it can say hello, and nothing that needs a cluster.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(options: ClientOptions) -> Result<Self, TlsError> {
        let tls = match &options.tls {
            Some(tls) => tls.client_config(),
            None => no_tls()?,
        };
        let build = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .http1_only()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .tcp_nodelay(true)
                .tcp_keepalive(Duration::from_secs(15))
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(POOL_IDLE_MAX)
                .build()
                .map_err(|error| TlsError::Client(causes(&error)))
        };
        Ok(Self {
            inner: Arc::new(Inner {
                raft: build()?,
                bulk: build()?,
                encrypted: options.tls.is_some(),
                stall: options.stall,
                metrics: options.metrics,
                identity: OnceLock::new(),
                suspects: Mutex::new(HashMap::new()),
            }),
        })
    }

    /// Sets who this replica is, once; every request says it from then on.
    pub fn set_identity(&self, cluster_id: &str, node_id: NodeId) {
        // A second call with another identity cannot happen: an identity is for life.
        let _ = self.inner.identity.set((cluster_id.to_owned(), node_id));
    }

    /// The size of a blob that the peer holds, `None` if it lacks it.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn has_blob(&self, peer: &Peer, digest: &Digest) -> Result<Option<u64>, PeerError> {
        let call = Call { client: self, peer, operation: "HEAD blob" };
        let request = call.request(Method::HEAD, &format!("/peer/blobs/{digest}"))?;
        match call.send(request, SHORT_ANSWER).await {
            Ok(response) => Ok(Some(call.length(&response)?)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Which of `blobs`, at most [`wire::CONFIRM_MAX`], are placed on the peer and on its disk so surely
    /// that no other copy is needed for them. One that takes too long to verify there is left out, and
    /// confirmed when it is asked about again.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn confirm_blobs(
        &self,
        peer: &Peer,
        blobs: Vec<BlobSize>,
    ) -> Result<Vec<Digest>, PeerError> {
        let call = Call { client: self, peer, operation: "confirm blobs" };
        let request = call.request(Method::POST, "/peer/confirm")?.json(&Confirm { blobs });
        let response = call.send(request, HEAD_MAX).await?;
        Ok(call.json::<Confirmed>(response).await?.digests)
    }

    /// Streams a blob, or `range` of it, from the peer's disk. `None` if it lacks it.
    ///
    /// `size` is the whole blob's size as the catalogue has it. The stream yields exactly the bytes
    /// asked for, or an error when the peer sends fewer or more or nothing for too long.
    ///
    /// # Errors
    /// When the peer does not answer, or offers a blob of another size.
    pub async fn fetch_blob(
        &self,
        peer: &Peer,
        digest: &Digest,
        size: u64,
        range: Option<Range<u64>>,
    ) -> Result<Option<PeerBlob>, PeerError> {
        let call = Call { client: self, peer, operation: "GET blob" };
        let mut request = call.request(Method::GET, &format!("/peer/blobs/{digest}"))?;
        let (expected, patience) = match &range {
            None => (size, SHORT_ANSWER),
            // A part can only be given out once the whole is verified there.
            Some(range) => {
                let last = range.end.saturating_sub(1);
                request = request.header(header::RANGE, format!("bytes={}-{last}", range.start));
                let hashing = Duration::from_secs(size / SLOWEST_DISK);
                (range.end.saturating_sub(range.start), (SHORT_ANSWER + hashing).min(HEAD_MAX))
            }
        };
        let response = match call.send(request, patience).await {
            Ok(response) => response,
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let wanted = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        if response.status() != wanted {
            return Err(call.broken(format!("status {} for this range", response.status())));
        }
        let offered = call.length(&response)?;
        if offered != expected {
            return Err(call.broken(format!("offers {offered} bytes, {expected} are wanted")));
        }
        Ok(Some(PeerBlob { size, stream: call.body(response, expected) }))
    }

    /// Pushes a whole blob. When this returns `Ok`, it is verified, fsynced and published there.
    ///
    /// # Errors
    /// When the peer refuses or stops taking bytes, or the source fails.
    pub async fn push_blob<S, E>(
        &self,
        peer: &Peer,
        digest: &Digest,
        size: u64,
        body: S,
    ) -> Result<(), PeerError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let call = Call { client: self, peer, operation: "push blob" };
        let request = call
            .request(Method::POST, &format!("/peer/blobs/{digest}?size={size}"))?
            .header(header::CONTENT_LENGTH, size);
        call.send_body(request, body, Some(size), finish_patience(size)).await?;
        Ok(())
    }

    /// Opens, or cuts back to `offset`, the peer's copy of an upload session.
    ///
    /// # Errors
    /// [`PeerError::OtherOffset`] when the peer has fewer bytes than `offset`.
    pub async fn create_session(
        &self,
        peer: &Peer,
        claim: &Claim,
        repository: &RepositoryName,
        algorithm: Algorithm,
        offset: u64,
    ) -> Result<(), PeerError> {
        let call = Call { client: self, peer, operation: "create session" };
        // Nothing in a repository name or a digest needs escaping in a query.
        let algorithm = algorithm.name();
        let (id, right) = (claim.id, claim.query());
        let query = format!("repository={repository}&algorithm={algorithm}&offset={offset}{right}");
        let request = call.request(Method::POST, &format!("/peer/sessions/{id}?{query}"))?;
        // Cutting back hashes what stays.
        let patience = (SHORT_ANSWER + Duration::from_secs(offset / SLOWEST_DISK)).min(HEAD_MAX);
        call.send(request, patience).await?;
        Ok(())
    }

    /// Appends to the peer's copy of an upload session, which has to end at `offset`. Returns
    /// where it ends afterwards.
    ///
    /// # Errors
    /// When the peer refuses or stops taking bytes.
    pub async fn append_session<S, E>(
        &self,
        peer: &Peer,
        claim: &Claim,
        offset: u64,
        body: S,
    ) -> Result<u64, PeerError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let call = Call { client: self, peer, operation: "append to session" };
        let path = format!("/peer/sessions/{}?offset={offset}{}", claim.id, claim.query());
        let request = call.request(Method::PATCH, &path)?;
        let response = call.send_body(request, body, None, self.inner.stall).await?;
        Ok(call.json::<OffsetAnswer>(response).await?.offset)
    }

    /// What the peer has of an upload session; `None` if nothing.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn session(
        &self,
        peer: &Peer,
        id: &UploadId,
    ) -> Result<Option<SessionInfo>, PeerError> {
        let call = Call { client: self, peer, operation: "GET session" };
        let request = call.request(Method::GET, &format!("/peer/sessions/{id}"))?;
        match call.send(request, SHORT_ANSWER).await {
            Ok(response) => Ok(Some(call.json(response).await?)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the peer verify, fsync and publish its copy of an upload session.
    ///
    /// # Errors
    /// When its copy has another size or digest, or it does not answer in time.
    pub async fn finish_session(
        &self,
        peer: &Peer,
        claim: &Claim,
        digest: &Digest,
        size: u64,
    ) -> Result<(), PeerError> {
        let call = Call { client: self, peer, operation: "finish session" };
        let (id, right) = (claim.id, claim.query());
        let path = format!("/peer/sessions/{id}/finish?digest={digest}&size={size}{right}");
        let request = call.request(Method::POST, &path)?;
        call.send(request, finish_patience(size)).await?;
        Ok(())
    }

    /// Removes the peer's copy of an upload session. No copy is no error.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn delete_session(&self, peer: &Peer, claim: &Claim) -> Result<(), PeerError> {
        let call = Call { client: self, peer, operation: "delete session" };
        let path = format!("/peer/sessions/{}?{}", claim.id, claim.query());
        let request = call.request(Method::DELETE, &path)?;
        call.send(request, SHORT_ANSWER).await?;
        Ok(())
    }

    /// What the peer says about itself.
    ///
    /// # Errors
    /// When there is no answer within `deadline`.
    pub async fn status(&self, peer: &Peer, deadline: Duration) -> Result<PeerStatus, PeerError> {
        let call = Call { client: self, peer, operation: "GET status" };
        let request = call.request(Method::GET, "/peer/status")?.timeout(deadline);
        let response = call.send(request, deadline).await?;
        call.json(response).await
    }

    /// `peers`, those that lately did not answer last; otherwise in the order given.
    #[must_use]
    pub fn likeliest_first(&self, mut peers: Vec<Peer>) -> Vec<Peer> {
        let mut suspects = self.suspects();
        suspects.retain(|_, since| since.elapsed() < SUSPECT_FOR);
        peers.sort_by_key(|peer| suspects.contains_key(&peer.node_id));
        peers
    }

    /// Whether a peer did not answer a few seconds ago.
    #[must_use]
    pub fn is_suspect(&self, peer: &Peer) -> bool {
        self.suspects().get(&peer.node_id).is_some_and(|since| since.elapsed() < SUSPECT_FOR)
    }

    /// How long a stream may stand still.
    #[must_use]
    pub fn stall(&self) -> Duration {
        self.inner.stall
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    pub(super) fn raft_http(&self) -> &reqwest::Client {
        &self.inner.raft
    }

    pub(super) fn bulk_http(&self) -> &reqwest::Client {
        &self.inner.bulk
    }

    /// Where `path` is on a peer, or why it must not be asked.
    pub(super) fn url(&self, address: &str, path: &str) -> Result<String, String> {
        if self.inner.encrypted && !address.starts_with("https://") {
            return Err(TlsError::PlainAddress { address: address.to_owned() }.to_string());
        }
        if !self.inner.encrypted && !is_loopback(address) {
            return Err(TlsError::PlainRefused { address: address.to_owned() }.to_string());
        }
        Ok(format!("{}{path}", address.trim_end_matches('/')))
    }

    /// Says who asks whom. `target` 0 stands for "whoever is there".
    pub(super) fn addressed(&self, mut request: RequestBuilder, target: NodeId) -> RequestBuilder {
        if let Some((cluster_id, node_id)) = self.inner.identity.get() {
            request = request
                .header(wire::CLUSTER_HEADER, cluster_id)
                .header(wire::SENDER_HEADER, *node_id);
        }
        if target != 0 {
            request = request.header(wire::TARGET_HEADER, target);
        }
        request
    }

    pub(super) fn suspect(&self, peer: &Peer) {
        self.suspects().insert(peer.node_id, Instant::now());
    }

    fn suspects(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.inner.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a peer may take to verify and fsync `size` bytes: 32 MiB a second is a slow disk.
pub(super) fn finish_patience(size: u64) -> Duration {
    FINISH_BASE + Duration::from_secs(size >> 25)
}
