//! The sections of the configuration, with their defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Access;
use super::housekeeping::{Gc, Retention, Scrub};
use super::limits::Limits;
use super::member::MemberEntry;

/// Everything a replica is told from outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this replica is and where its bytes are.
    pub node: Node,
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// The listener that speaks the OCI distribution API.
    pub registry: Registry,
    /// The listener that other replicas talk to.
    pub peer: Peer,
    /// The listener for health, metrics and status.
    pub ops: Ops,
    /// The listener that the Kubernetes API server talks to.
    pub webhook: Webhook,
    /// Who may do what.
    pub access: Access,
    /// When blobs that nothing names go.
    pub gc: Gc,
    /// Which tags and manifests may go.
    pub retention: Retention,
    /// How often stored bytes are read again.
    pub scrub: Scrub,
    /// What is logged, and how.
    pub log: Log,
    /// Every bound there is.
    pub limits: Limits,
}

impl Config {
    /// The base URL under which other replicas reach this one: `peer.advertise`, else this
    /// replica's entry in `cluster.members`, else the peer listen address.
    #[must_use]
    pub fn peer_address(&self) -> String {
        if let Some(advertise) = &self.peer.advertise {
            return advertise.clone();
        }
        let own = self.cluster.members.iter().find(|member| member.name == self.node.name);
        if let Some(member) = own {
            return member.address.clone();
        }
        let scheme = if self.peer.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.peer.listen)
    }

    /// The members that form the cluster the first time. A list that is left empty means this
    /// replica alone.
    #[must_use]
    pub fn initial_members(&self) -> Vec<MemberEntry> {
        if self.cluster.members.is_empty() {
            return vec![MemberEntry {
                name: self.node.name.clone(),
                address: self.peer_address(),
            }];
        }
        self.cluster.members.clone()
    }
}

/// `[node]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Unique name of the replica within its cluster. Default: the host name.
    pub name: String,
    /// Directory that holds everything this replica stores.
    pub data_dir: PathBuf,
    /// What it does in its cluster.
    pub role: NodeRole,
    /// Where it stands, such as a rack or an availability zone: copies of a blob go to different zones.
    /// Empty: nowhere in particular.
    pub zone: String,
}

/// What a replica does in its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// It votes, while there are not voters enough, and keeps blobs.
    #[default]
    Voter,
    /// It never votes, keeps only what is pulled through it, and passes pushes on.
    Edge,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: host_name(),
            data_dir: PathBuf::from("/var/lib/tercet"),
            role: NodeRole::default(),
            zone: String::new(),
        }
    }
}

/// A StatefulSet gives every pod a stable host name, which is what a replica's name should be.
fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    match told.trim() {
        "" => "tercet-0".to_owned(),
        name => name.to_owned(),
    }
}

/// Whether reads go through the read barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// A read sees every write that was acknowledged before it began.
    Linearizable,
    /// A read answers from local state at once and may be behind.
    Local,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The first members, each `"name=url"` with the URL of its peer listener. The same list, in
    /// the same order, on every replica.
    pub members: Vec<MemberEntry>,
    /// How many replicas keep each blob.
    pub replication_factor: usize,
    /// What a metadata read promises.
    pub consistency: Consistency,
    /// How often the leader tells its followers that it lives, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest time, beyond `election_timeout_max_ms`, that a leader may be silent before a follower stands
    /// for election, in milliseconds.
    pub election_timeout_min_ms: u64,
    /// Longest such time, in milliseconds. A leader that was heard is trusted for as long, so that a dead one
    /// is replaced after this and a random time between the two.
    pub election_timeout_max_ms: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            replication_factor: 3,
            consistency: Consistency::Linearizable,
            heartbeat_ms: 200,
            election_timeout_min_ms: 400,
            election_timeout_max_ms: 750,
        }
    }
}

impl Cluster {
    /// [`Cluster::heartbeat_ms`] as a duration.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// [`Cluster::election_timeout_min_ms`] as a duration.
    #[must_use]
    pub fn election_timeout_min(&self) -> Duration {
        Duration::from_millis(self.election_timeout_min_ms)
    }

    /// [`Cluster::election_timeout_max_ms`] as a duration.
    #[must_use]
    pub fn election_timeout_max(&self) -> Duration {
        Duration::from_millis(self.election_timeout_max_ms)
    }
}

/// `[registry]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Address of the OCI distribution API.
    pub listen: SocketAddr,
    /// Which manifests may name what their repository lacks.
    pub sparse_manifests: SparseManifests,
    /// HTTPS; without it plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { listen: loopback(5000), sparse_manifests: SparseManifests::default(), tls: None }
    }
}

/// Which manifests are taken although their repository lacks a part of what they name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SparseManifests {
    /// None.
    Never,
    /// An index of which one manifest at least is there.
    #[default]
    Indexes,
    /// Also an image of which the configuration and one layer at least are there.
    Always,
}

/// `[registry.tls]`, `[ops.tls]`, `[webhook.tls]`: PEM files, read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
    /// Certificates of the authorities whose client certificates are believed. Without it clients
    /// are not asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether a client has to have a certificate of `client_ca`.
    pub client_auth: ClientAuth,
}

/// What is asked of a client when `client_ca` is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// A certificate is taken if there is one.
    #[default]
    Optional,
    /// Without a certificate there is no connection.
    Required,
}

/// `[peer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// Address of the listener that other replicas talk to.
    pub listen: SocketAddr,
    /// Base URL under which other replicas reach that listener, when it differs from this
    /// replica's entry in `cluster.members`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Mutual TLS between replicas. Without it the peer listener has to be on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTls>,
}

impl Default for Peer {
    fn default() -> Self {
        Self { listen: loopback(5001), advertise: None, tls: None }
    }
}

/// `[peer.tls]`: PEM files, as `tercet certs new` writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerTls {
    /// Certificate of the authority that signed every replica's certificate.
    pub ca: PathBuf,
    /// This replica's certificate chain.
    pub certificate: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
}

/// `[ops]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Address of health, metrics and status.
    pub listen: SocketAddr,
    /// HTTPS; without it plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

impl Default for Ops {
    fn default() -> Self {
        Self { listen: loopback(5002), tls: None }
    }
}

/// `[webhook]`. The listener is opened only with `[webhook.tls]`: an API server talks TLS to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Address of the admission webhook.
    pub listen: SocketAddr,
    /// Certificate and key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

impl Default for Webhook {
    fn default() -> Self {
        Self { listen: loopback(5443), tls: None }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object to a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// A level, or a list such as `info,tercet::access=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, level: "info".to_owned() }
    }
}

/// Nothing listens to the network until somebody says so.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
