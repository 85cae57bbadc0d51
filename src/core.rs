//! What one running replica is made of, as the request handlers and the background work see it.

use std::sync::Arc;

use tercet_raft::Consensus;
use tercet_storage::BlobStore;

use crate::auth::AccessControl;
use crate::config::Config;
use crate::loss::Losses;
use crate::ops::Metrics;
use crate::peer;
use crate::registry::{self, Collection, Pulls, Uploads};
use crate::scrub::ScrubHandle;
use crate::worker::Workers;

/// The parts that [`Core::new`] joins; built by `app` in the order of their needs.
pub struct CoreParts {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Blob bytes on this replica's disk.
    pub blobs: BlobStore,
    /// This replica's seat in the Raft group.
    pub consensus: Consensus,
    /// The way to the other replicas.
    pub peers: peer::Client,
    /// Upload sessions that this replica holds for another one.
    pub held_sessions: peer::HeldSessions,
    /// Reads blobs that this replica lacks from its peers, and keeps them.
    pub fetcher: peer::Fetcher,
    /// Blobs that no replica has any more.
    pub losses: Losses,
    /// How far the reading of all blobs is.
    pub scrub: ScrubHandle,
    /// Who asks, and what they may do.
    pub access: Arc<AccessControl>,
    /// Counters and gauges of this process.
    pub metrics: Arc<Metrics>,
    /// The registry of background tasks.
    pub workers: Workers,
}

/// One replica. Shared by every handler and worker.
pub struct Core {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Blob bytes on this replica's disk.
    pub blobs: BlobStore,
    /// This replica's seat in the Raft group.
    pub consensus: Consensus,
    /// The way to the other replicas.
    pub peers: peer::Client,
    /// Upload sessions that this replica holds for another one.
    pub held_sessions: peer::HeldSessions,
    /// Reads blobs that this replica lacks from its peers, and keeps them.
    pub fetcher: peer::Fetcher,
    /// Blobs that no replica has any more.
    pub losses: Losses,
    /// How far the reading of all blobs is.
    pub scrub: ScrubHandle,
    /// Upload sessions that this replica serves.
    pub uploads: Uploads,
    /// Pulls that the group has not been told of.
    pub pulls: Pulls,
    /// How garbage collection stands here, and the way to ask for it.
    pub collection: Collection,
    /// Who asks, and what they may do.
    pub access: Arc<AccessControl>,
    /// Counters and gauges of this process.
    pub metrics: Arc<Metrics>,
    /// The registry of background tasks.
    pub workers: Workers,
}

impl Core {
    /// Joins the parts and starts the registry's own background work: the reaper of idle uploads, and the
    /// keeper of the replicated settings.
    #[must_use]
    pub fn new(parts: CoreParts) -> Arc<Self> {
        let uploads = Uploads::new(&parts.config.limits);
        let core = Arc::new(Self {
            config: parts.config,
            blobs: parts.blobs,
            consensus: parts.consensus,
            peers: parts.peers,
            held_sessions: parts.held_sessions,
            fetcher: parts.fetcher,
            losses: parts.losses,
            scrub: parts.scrub,
            uploads,
            pulls: Pulls::default(),
            collection: Collection::new(),
            access: parts.access,
            metrics: parts.metrics,
            workers: parts.workers,
        });
        registry::start_reaper(&core);
        registry::start_settings(&core);
        registry::start_retention(&core);
        registry::start_pulls(&core);
        registry::start_collector(&core);
        registry::start_unlinker(&core);
        core
    }
}
