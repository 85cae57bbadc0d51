//! One replica from start to end: the order in which its parts come up, and go down.
//!
//! The listeners are bound first, so that a taken port is told before anything is touched, and they
//! answer from then on: probes get the phase, clients a refusal, peers a hello. Bootstrap needs that
//! hello, because every replica asks all others whether a cluster exists.

use std::sync::{Arc, OnceLock};

use tercet_raft::{
    BootstrapOptions, Consensus, Hello, Identity, InitialMember, MemberKind, RaftError, RaftTiming,
    ReplicaNode, StartOptions, Transport,
};
use tercet_storage::{
    BlobStore, BlobStoreOptions, Clock, DataDir, Digest, Headroom, HeadroomOptions, StorageError,
    SystemClock, planted,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::auth::{AccessControl, Prepared, StartParts};
use crate::config::{Config, ListenerTls, NodeRole, Sources};
use crate::core::{Core, CoreParts};
use crate::exit::{Exit, Failure, OrExit};
use crate::loss::Losses;
use crate::ops::drain::{Listeners, Replica, drain};
use crate::ops::router::OpsState;
use crate::ops::seat::Seat;
use crate::ops::{Health, Metrics, descriptors, disk, status};
use crate::peer::{self, PeerState, PeerTransport};
use crate::scrub::{Scrub, ScrubParts};
use crate::server::{
    Exposure, Gate, Server, ServerLimits, ServerParts, TlsSource, TlsSpec, accept,
};
use crate::worker::Workers;
use crate::{admin, api, ops, webhook};

/// Committed blobs that wait for repair to look at them; the comparison with the disk finds more.
const COMMITTED_QUEUE: usize = 4_096;

/// Runs a replica until `stop` is cancelled, then drains it.
///
/// # Errors
/// [`Failure`] with the exit code, when it cannot start or cannot go on.
pub async fn run(
    mut config: Config,
    sources: Sources,
    stop: CancellationToken,
) -> Result<(), Failure> {
    tracing::info!(
        name = config.node.name,
        version = crate::VERSION,
        data_dir = %config.node.data_dir.display(),
        "starting"
    );
    planted::announce();
    config.limits = descriptors::fit(config.limits);
    let access = Prepared::load(&config, sources).await.or_exit(Exit::Config)?;
    let data = DataDir::new(&config.node.data_dir);
    let _lock = data.lock().map_err(storage_failure)?;
    let foundation = Foundation::lay(Arc::new(config), data).await?;
    let identity = tokio::select! {
        // Nothing is acknowledged yet, so there is nothing to drain.
        () = stop.cancelled() => return Ok(()),
        identity = foundation.find_identity() => identity?,
    };
    let (consensus, committed) = foundation.join(identity).await?;
    let access = access.start(StartParts {
        consensus: consensus.clone(),
        clock: Arc::clone(&foundation.clock),
        metrics: Arc::clone(&foundation.metrics),
        workers: foundation.workers.clone(),
    });
    foundation.start_work(&consensus, access, committed);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = consensus.failed() => Err(Failure::new(Exit::Software, format!("raft: {reason}"))),
    };
    let Foundation { health, workers, listeners, .. } = foundation;
    drain(Replica { health, consensus, workers, listeners }).await;
    ended
}

/// What there is before the replica knows its cluster.
struct Foundation {
    config: Arc<Config>,
    data: DataDir,
    headroom: Headroom,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    workers: Workers,
    blobs: BlobStore,
    peers: peer::Client,
    peer_state: PeerState,
    ops_state: Arc<OpsState>,
    registry_gate: Gate,
    listeners: Listeners,
    /// Where the registry really listens.
    registry_address: std::net::SocketAddr,
}

impl Foundation {
    /// Binds every listener and lets it answer as far as it can.
    async fn lay(config: Arc<Config>, data: DataDir) -> Result<Self, Failure> {
        let limits = &config.limits;
        let metrics = Arc::new(Metrics::new().or_exit(Exit::Software)?);
        let health = Arc::new(Health::starting());
        let exposure = Exposure::of(&config);
        let registry_socket = bind(exposure.listen, "registry").await?;
        let peer_socket = bind(config.peer.listen, "peer").await?;
        let ops_socket = bind(config.ops.listen, "ops").await?;
        let webhook_socket = match &config.webhook.tls {
            Some(_) => Some(bind(config.webhook.listen, "webhook").await?),
            None => None,
        };
        for told in exposure.held_back.iter().chain(&exposure.warning) {
            tracing::warn!("{told}");
        }
        if let Some(remark) = exposure.held_back {
            health.remark(remark);
        }

        let tls = peer_tls(&config)?;
        let registry_tls = listener_tls("registry", config.registry.tls.as_ref())?;
        let ops_tls = listener_tls("ops", config.ops.tls.as_ref())?;
        let webhook_tls = listener_tls("webhook", config.webhook.tls.as_ref())?;
        // Before anything else writes: what is left on a full disk is for opening the databases.
        let headroom = Headroom::open(
            &data,
            HeadroomOptions {
                headroom_bytes: limits.disk_headroom_bytes,
                reserve_bytes: limits.raft_reserve_bytes,
            },
        )
        .map_err(storage_failure)?;
        let blobs = BlobStore::open(BlobStoreOptions {
            root: data.root().to_owned(),
            refuse_percent: limits.disk_refuse_percent,
            headroom_bytes: limits.disk_headroom_bytes,
        })
        .map_err(storage_failure)?;
        let peers = peer::Client::new(peer::ClientOptions {
            tls: tls.clone(),
            stall: limits.holder_stall(),
            metrics: Arc::clone(&metrics),
        })
        .or_exit(Exit::Config)?;
        let identity = Identity::load(&data).map_err(raft_failure)?;
        let hello = hello(&config.node.name, identity.as_ref());
        let peer_state = PeerState::new(hello, blobs.clone(), limits.peer_streams_max);
        let ops_state = Arc::new(OpsState {
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            core: OnceLock::new(),
        });
        let registry_gate = Gate::default();

        // Apart from the other workers: listeners end in an order of their own.
        let servers = Workers::new();
        let serve = |listener, router, tls, limits| {
            let metrics = Arc::clone(&metrics);
            Server::start(&servers, ServerParts { listener, router, tls, limits, metrics })
        };
        let peer_routes = peer::server::router(peer_state.clone());
        let peer_tls = tls.map(|tls| tls.source());
        let ops_routes = ops::router::router(Arc::clone(&ops_state));
        let listeners = Listeners {
            registry: serve(
                registry_socket,
                registry_gate.router(),
                registry_tls,
                ServerLimits::registry(limits),
            ),
            peer: serve(peer_socket, peer_routes, peer_tls, ServerLimits::peer(limits)),
            ops: serve(ops_socket, ops_routes, ops_tls, ServerLimits::ops(limits)),
            webhook: webhook_socket.map(|socket| {
                let routes = webhook::router(Arc::clone(&ops_state));
                serve(socket, routes, webhook_tls, ServerLimits::webhook(limits))
            }),
        };
        Ok(Self {
            config,
            data,
            headroom,
            clock: Arc::new(SystemClock),
            metrics,
            health,
            workers: Workers::new(),
            blobs,
            peers,
            peer_state,
            ops_state,
            registry_gate,
            listeners,
            registry_address: exposure.listen,
        })
    }

    /// Reads who this replica is, or finds it out together with the others.
    async fn find_identity(&self) -> Result<Identity, Failure> {
        let (progress, mut told) = watch::channel(String::from("looking for the cluster"));
        let members = self.initial_members();
        let transport = self.transport();
        let invited = self.peer_state.invited();
        let bootstrap = tercet_raft::bootstrap(BootstrapOptions {
            data: &self.data,
            own_name: &self.config.node.name,
            kind: self.kind(),
            initial_members: &members,
            transport: &transport,
            clock: &self.clock,
            progress: &progress,
            invited: &invited,
        });
        let pass_on = async {
            loop {
                self.health.progress(&told.borrow_and_update());
                if told.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            identity = bootstrap => identity.map_err(raft_failure),
            () = pass_on => Err(Failure::new(Exit::Software, "bootstrap lost its progress")),
        }
    }

    /// Takes the replica's seat in the Raft group.
    async fn join(
        &self,
        identity: Identity,
    ) -> Result<(Consensus, mpsc::Receiver<(Digest, u64)>), Failure> {
        self.health.progress("opening the log and the state");
        let cluster = &self.config.cluster;
        self.peers.set_identity(&identity.cluster_id, identity.node_id);
        self.peer_state.set_hello(hello(&self.config.node.name, Some(&identity)));
        let (committed_blobs, committed) = mpsc::channel(COMMITTED_QUEUE);
        let consensus = Consensus::start(StartOptions {
            data: self.data.clone(),
            identity,
            node: ReplicaNode {
                name: self.config.node.name.clone(),
                address: self.config.peer_address(),
                kind: self.kind(),
                zone: Some(self.config.node.zone.clone()).filter(|zone| !zone.is_empty()),
            },
            initial_members: self.initial_members(),
            timing: RaftTiming {
                heartbeat: cluster.heartbeat(),
                election_min: cluster.election_timeout_min(),
                election_max: cluster.election_timeout_max(),
                ..RaftTiming::default()
            },
            transport: self.transport(),
            clock: Arc::clone(&self.clock),
            headroom: self.headroom.clone(),
            feature_level: tercet_raft::own_feature_level(),
            committed_blobs,
        })
        .await
        .map_err(raft_failure)?;
        Ok((consensus, committed))
    }

    /// Opens the listeners' remaining routes and starts the background work.
    fn start_work(
        &self,
        consensus: &Consensus,
        access: Arc<AccessControl>,
        committed: mpsc::Receiver<(Digest, u64)>,
    ) {
        let directory = peer::Directory::of(consensus);
        let edge_cache = self.edge_cache(consensus);
        let fetcher = peer::Fetcher::new(peer::FetcherParts {
            blobs: self.blobs.clone(),
            peers: self.peers.clone(),
            directory: directory.clone(),
            workers: self.workers.clone(),
            metrics: Arc::clone(&self.metrics),
            disk_stop_percent: self.config.limits.disk_repair_stop_percent,
            edge_cache: edge_cache.clone(),
        });
        let losses = Losses::new(
            Arc::new(consensus.clone()),
            Arc::clone(&self.clock),
            Arc::clone(&self.metrics),
        );
        let scrub = Scrub::new(ScrubParts {
            data: self.data.clone(),
            blobs: self.blobs.clone(),
            fetcher: fetcher.clone(),
            known: Arc::new(consensus.clone()),
            losses: losses.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            config: self.config.scrub.clone(),
        });
        let repair = peer::Repair::new(peer::RepairParts {
            blobs: self.blobs.clone(),
            fetcher: fetcher.clone(),
            directory,
            catalogue: Arc::new(consensus.clone()),
            committed,
            metrics: Arc::clone(&self.metrics),
            losses: losses.clone(),
            clock: Arc::clone(&self.clock),
            replication_factor: self.config.cluster.replication_factor,
            parallel: self.config.limits.repair_parallel,
            budget: peer::Budget::new(self.config.limits.repair_bytes_per_second),
            surplus_after: self.config.limits.surplus_after(),
        });
        let core = Core::new(CoreParts {
            config: Arc::clone(&self.config),
            blobs: self.blobs.clone(),
            consensus: consensus.clone(),
            peers: self.peers.clone(),
            held_sessions: self.peer_state.held().clone(),
            fetcher,
            losses,
            scrub: scrub.handle(),
            access,
            metrics: Arc::clone(&self.metrics),
            workers: self.workers.clone(),
        });
        let routes = api::router(Arc::clone(&core));
        self.peer_state.attach_consensus(consensus.clone());
        self.peer_state.attach_registry(routes.clone());
        let (members, factor) = (consensus.clone(), self.config.cluster.replication_factor);
        self.peer_state.attach_placement(move |digest| {
            let own = members.identity().node_id;
            let members: Vec<peer::Peer> = members.members().iter().map(Into::into).collect();
            peer::is_placed_on(&members, factor, &peer::placement_key(digest), own)
        });
        self.peer_state.attach_admin(admin::router(&core));
        let (asked, watched) = (Arc::clone(&core), Arc::clone(&core));
        self.peer_state.attach_status(move || status::of_this_replica(&asked));
        // Set once, here; nothing else sets it.
        let _ = self.ops_state.core.set(core);
        self.registry_gate.open(routes);
        self.health.serving();

        // An edge too: it is nobody's place for a blob and so misses none, unless the membership still has it
        // as a voter.
        self.workers.spawn("repair", |stop| repair.run(stop));
        if let Some(cache) = edge_cache {
            self.workers.spawn("edge-cache", |stop| cache.run(stop));
        }
        let seat = Seat { consensus: consensus.clone(), closers: self.listeners.closers() };
        self.workers.spawn("seat", |stop| seat.watch(stop));
        self.workers.spawn("scrub", |stop| scrub.run(stop));
        let held = self.peer_state.held().clone();
        let idle = self.config.limits.upload_idle();
        self.workers.spawn("held-sessions", |stop| held.keep_reaping(idle, stop));
        let health = Arc::clone(&self.health);
        self.workers.spawn("disk-watch", |stop| disk::watch(watched, health, stop));
        tracing::info!(
            registry = %self.registry_address,
            peer = %self.config.peer.listen,
            ops = %self.config.ops.listen,
            "serving"
        );
    }

    /// On an edge, what bounds the blobs that it keeps.
    fn edge_cache(&self, consensus: &Consensus) -> Option<peer::EdgeCache> {
        if self.config.node.role != NodeRole::Edge {
            return None;
        }
        let consensus = consensus.clone();
        Some(peer::EdgeCache::new(peer::EdgeCacheParts {
            blobs: self.blobs.clone(),
            file: self.data.edge_uses(),
            bytes_max: self.config.limits.edge_cache_bytes,
            metrics: Arc::clone(&self.metrics),
            is_edge: Box::new(move || {
                let own = consensus.identity().node_id;
                consensus
                    .members()
                    .iter()
                    .any(|member| member.node_id == own && member.kind == MemberKind::Edge)
            }),
        }))
    }

    fn kind(&self) -> MemberKind {
        match self.config.node.role {
            NodeRole::Voter => MemberKind::Voter,
            NodeRole::Edge => MemberKind::Edge,
        }
    }

    fn initial_members(&self) -> Vec<InitialMember> {
        let members = self.config.initial_members().into_iter();
        members.map(|member| InitialMember { name: member.name, address: member.address }).collect()
    }

    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(PeerTransport::new(self.peers.clone()))
    }
}

async fn bind(address: std::net::SocketAddr, listener: &str) -> Result<TcpListener, Failure> {
    accept::bind(address)
        .await
        .map_err(|error| Failure::new(Exit::Unavailable, format!("{listener} listener: {error}")))
}

fn peer_tls(config: &Config) -> Result<Option<peer::PeerTls>, Failure> {
    let Some(files) = &config.peer.tls else { return Ok(None) };
    let files = peer::TlsFiles {
        ca: files.ca.clone(),
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    };
    peer::PeerTls::load(&files).map(Some).or_exit(Exit::Config)
}

fn listener_tls(
    listener: &'static str,
    tls: Option<&ListenerTls>,
) -> Result<Option<Arc<TlsSource>>, Failure> {
    let Some(tls) = tls else { return Ok(None) };
    TlsSource::load(TlsSpec::listener(listener, tls)).map(Some).or_exit(Exit::Config)
}

fn hello(name: &str, identity: Option<&Identity>) -> Hello {
    Hello {
        name: name.to_owned(),
        cluster_id: identity.map(|identity| identity.cluster_id.clone()),
        node_id: identity.map(|identity| identity.node_id),
        feature_level: tercet_raft::own_feature_level(),
    }
}

/// The exit code for what the disk did.
pub(crate) fn storage_failure(error: StorageError) -> Failure {
    let exit = match &error {
        StorageError::Locked { .. } => Exit::Unavailable,
        StorageError::Corrupt { .. }
        | StorageError::Record { .. }
        | StorageError::Codec(_)
        | StorageError::Key { .. } => Exit::Data,
        _ => Exit::Io,
    };
    Failure { exit, error: error.into() }
}

/// The exit code for what kept a replica out of its group.
pub(crate) fn raft_failure(error: RaftError) -> Failure {
    let exit = match error {
        RaftError::Storage(error) => return storage_failure(error),
        RaftError::Identity { .. }
        | RaftError::LogLost { .. }
        | RaftError::StateLost { .. }
        | RaftError::Outdated { .. }
        | RaftError::FeatureLevel { .. }
        | RaftError::Unfinished { .. }
        | RaftError::Refound(_) => Exit::Data,
        RaftError::ClusterMismatch(_) | RaftError::Refused(_) => Exit::Config,
        _ => Exit::Software,
    };
    Failure { exit, error: error.into() }
}
