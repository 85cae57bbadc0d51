//! What a replica's state comes to at one index of the log: equal on all replicas, or one of them is wrong.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tercet_storage::codec::decode;
use tercet_storage::{Digest, StateDb, SystemKeys, TableHash};

use crate::consensus::Inner;
use crate::machine::{KEY_LAST_APPLIED, KEY_MEMBERSHIP};
use crate::records::{LOG_ID, LogIdRecord, to_io};
use crate::type_config::alias::LogId;

/// A digest over the replicated state, with the log entry that it stands for. To be compared between replicas of one
/// version and at one index only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    /// Index of the last entry in it; 0 before the first.
    pub applied: u64,
    /// The term of that entry.
    pub term: u64,
    /// Over all of it.
    pub digest: Digest,
    /// Table by table, to see where two replicas differ.
    pub tables: Vec<TableHash>,
}

/// The digest of an open database; `None` if `go_on` ended it.
///
/// # Errors
/// When the database cannot be read.
pub(crate) fn of(db: &StateDb, go_on: impl FnMut() -> bool) -> io::Result<Option<StateHash>> {
    let system = SystemKeys { hashed: &[KEY_MEMBERSHIP], told: KEY_LAST_APPLIED };
    let Some(hashed) = db.state_hash(system, go_on).map_err(to_io)? else { return Ok(None) };
    let last = hashed.told.map(|bytes| decode::<LogIdRecord>(LOG_ID, &bytes)).transpose();
    let last = last.map_err(to_io)?.map(LogId::from);
    Ok(Some(StateHash {
        applied: last.map_or(0, |id| id.index),
        term: last.map_or(0, |id| id.leader_id.term),
        digest: hashed.digest,
        tables: hashed.tables,
    }))
}

/// The digest of the state of a replica that does not run.
///
/// # Errors
/// When the database cannot be read.
pub fn hash_state(db: &StateDb) -> io::Result<StateHash> {
    of(db, || true)?.ok_or_else(|| io::Error::other("nobody ends it"))
}

impl Inner {
    pub(crate) async fn state_hash(&self) -> io::Result<StateHash> {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || state.hash()).await.map_err(io::Error::other)?
    }
}
