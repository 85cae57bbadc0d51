//! The end of a replica that is told to stop, in the order in which others depend on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tercet_raft::Consensus;

use super::Health;
use crate::server::{Closer, HAND_OVER_MAX, Server};
use crate::worker::Workers;

/// Time for background work to notice that it is cancelled.
const WORKERS_GRACE: Duration = Duration::from_secs(2);
/// Time for Raft to stop.
const RAFT_GRACE: Duration = Duration::from_secs(2);

/// What has to be stopped.
pub struct Replica {
    /// Its readiness.
    pub health: Arc<Health>,
    /// Its seat in the group.
    pub consensus: Consensus,
    /// Its background work.
    pub workers: Workers,
    /// Its listeners.
    pub listeners: Listeners,
}

/// The listeners.
pub struct Listeners {
    /// For clients.
    pub registry: Server,
    /// For other replicas.
    pub peer: Server,
    /// For probes.
    pub ops: Server,
    /// For the Kubernetes API server, where it is configured.
    pub webhook: Option<Server>,
}

impl Listeners {
    /// What closes those that clients come to.
    #[must_use]
    pub fn closers(&self) -> Vec<Closer> {
        std::iter::once(&self.registry).chain(&self.webhook).map(Server::closer).collect()
    }
}

/// Stops a replica within `limits.drain_seconds` and a few seconds more.
pub async fn drain(replica: Replica) {
    let Replica { health, consensus, workers, listeners } = replica;
    let began = Instant::now();
    // First, so that no new client comes while the rest goes on.
    health.draining();
    // Before clients are let go: their last writes then meet a leader elsewhere, not an election.
    consensus.transfer_leadership(HAND_OVER_MAX).await;
    // While peers still answer, since requests in flight need them.
    let drained = listeners.registry.drain().await;
    if let Some(webhook) = listeners.webhook {
        webhook.drain().await;
    }
    let late = workers.shutdown(WORKERS_GRACE).await;
    if !late.is_empty() {
        tracing::warn!(workers = ?late, "workers that did not stop in time");
    }
    if tokio::time::timeout(RAFT_GRACE, consensus.shutdown()).await.is_err() {
        // Nothing is lost: what was acknowledged is in the log.
        tracing::warn!("raft did not stop in time");
    }
    listeners.peer.drain().await;
    listeners.ops.drain().await;
    tracing::info!(
        finished = drained.finished,
        cut = drained.cut,
        took_ms = began.elapsed().as_millis() as u64,
        "stopped"
    );
}
