//! Who this replica is: decided once, on an empty disk, and fsynced before its first vote.

use serde::{Deserialize, Serialize};
use tercet_storage::planted::{PlantedBug, is_planted};
use tercet_storage::{DataDir, atomic_write};

use crate::chance;
use crate::error::RaftError;
use crate::refound::Unfinished;
use crate::type_config::NodeId;

/// The content of `<data>/identity.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Raft id, random, never reused.
    pub node_id: NodeId,
    /// The cluster this disk belongs to, 32 hex digits.
    pub cluster_id: String,
    /// The replica's configured name when the disk was new.
    pub name: String,
    /// When the disk was new, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// This replica founded the cluster, so it may initialise an empty Raft log. Every other replica
    /// waits to be added.
    pub founder: bool,
}

impl Identity {
    /// A new identity in the given cluster.
    pub fn join(name: &str, cluster_id: &str, now_ms: u64) -> Self {
        let node_id =
            if is_planted(PlantedBug::ReuseNodeId) { node_id_of(name) } else { random_node_id() };
        Self {
            node_id,
            cluster_id: cluster_id.to_owned(),
            name: name.to_owned(),
            created_ms: now_ms,
            founder: false,
        }
    }

    /// A new identity in a new cluster.
    pub fn found(name: &str, now_ms: u64) -> Self {
        let cluster_id = hex::encode(chance::bytes::<16>());
        Self { founder: true, ..Self::join(name, &cluster_id, now_ms) }
    }

    /// Reads the identity, or `None` on an empty disk.
    pub fn load(data: &DataDir) -> Result<Option<Self>, RaftError> {
        let path = data.identity();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RaftError::Identity { path, reason: error.to_string() }),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(identity) if identity.node_id != 0 => Ok(Some(identity)),
            Ok(_) => Err(RaftError::Identity { path, reason: "node_id is 0".to_owned() }),
            Err(error) => match Unfinished::parse(&bytes) {
                Some(unfinished) => Err(unfinished.refusal(data)),
                None => Err(RaftError::Identity { path, reason: error.to_string() }),
            },
        }
    }

    /// Writes the identity so that it survives a power loss before this returns.
    pub fn store(&self, data: &DataDir) -> Result<(), RaftError> {
        let path = data.identity();
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| RaftError::Identity {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        atomic_write(&path, &bytes)?;
        Ok(())
    }
}

/// 53 random bits, never 0: two replicas would have to be created some 90 million times before a
/// repetition becomes likely.
fn random_node_id() -> NodeId {
    loop {
        let id = chance::number() >> 11;
        if id != 0 {
            return id;
        }
    }
}

/// The same for every disk of that name, as an id must never be: [`PlantedBug::ReuseNodeId`].
fn node_id_of(name: &str) -> NodeId {
    name.bytes().fold(1, |id: u64, byte| (id * 31 + u64::from(byte)) % (1 << 53))
}
