//! Looks at the log and at Raft's part of the state of a replica that does not run, without changing a byte.

use std::path::Path;

use rocksdb::{DB, IteratorMode};
use tercet_storage::codec::decode;
use tercet_storage::{
    KvRead, LogColumn, StateDb, StorageError, Table, open_log_db_read_only, wal_damage,
};

use crate::error::RaftError;
use crate::log::{KEY_COMMITTED, KEY_PURGED, KEY_VOTE, column};
use crate::machine::{KEY_INSTALLED, KEY_LAST_APPLIED, KEY_LOG_SYNCED, KEY_MEMBERSHIP};
use crate::records::{LOG_ID, LogIdRecord, VOTE, VoteRecord, decode_entry, decode_membership};
use crate::type_config::NodeId;
use crate::type_config::alias::{LogId, Vote};

/// Problems that are kept in words.
const PROBLEMS_MAX: usize = 100;

/// What a log holds.
#[derive(Debug, Clone, Default)]
pub struct LogInspection {
    /// Index up to which it was purged.
    pub purged: Option<u64>,
    /// Index of its first entry.
    pub first: Option<u64>,
    /// Index of its last entry.
    pub last: Option<u64>,
    /// Index up to which it is known to be committed.
    pub committed: Option<u64>,
    /// Term, candidate, and whether that one has won.
    pub vote: Option<(u64, NodeId, bool)>,
    /// How many entries there are.
    pub entries: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Raft's part of a state.
#[derive(Debug, Clone, Default)]
pub struct StatePosition {
    /// Index of the last applied entry.
    pub applied: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Index of the snapshot that it came from.
    pub installed: Option<u64>,
    /// Index that the log must reach: up to there it was synced. `None` in a state of an older version.
    pub log_synced: Option<u64>,
    /// The members: name and id.
    pub members: Vec<(String, NodeId)>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Reads every entry of the log at `path`, its vote and its positions.
///
/// # Errors
/// When the database cannot be opened.
pub fn inspect_log(path: &Path) -> Result<LogInspection, RaftError> {
    let problems = wal_damage(path)?;
    let mut found = LogInspection { problems, ..LogInspection::default() };
    let db = open_log_db_read_only(path)?;
    let position = |key: &[u8], problems: &mut Vec<String>| {
        meta(&db, key, |bytes| decode::<LogIdRecord>(LOG_ID, bytes), problems)
            .map(|record| LogId::from(record).index)
    };
    let mut problems = std::mem::take(&mut found.problems);
    found.purged = position(KEY_PURGED, &mut problems);
    found.committed = position(KEY_COMMITTED, &mut problems);
    let vote = meta(&db, KEY_VOTE, |bytes| decode::<VoteRecord>(VOTE, bytes), &mut problems);
    found.vote = vote.map(|record| {
        let vote = Vote::from(record);
        (vote.leader_id.term, vote.leader_id.node_id, vote.committed)
    });
    found.problems = problems;
    entries(&db, &mut found)?;
    Ok(found)
}

fn entries(db: &DB, found: &mut LogInspection) -> Result<(), RaftError> {
    let handle = column(db, LogColumn::Entries).map_err(stopped)?;
    let mut previous = found.purged;
    for item in db.iterator_cf(handle, IteratorMode::Start) {
        let (key, value) = match item {
            Ok(pair) => pair,
            Err(error) => {
                found.say(format!("cannot be read behind {}: {error}", shown(previous)));
                return Ok(());
            }
        };
        let Some(index) = <[u8; 8]>::try_from(&*key).ok().map(u64::from_be_bytes) else {
            found.say("a key is not eight bytes long".to_owned());
            continue;
        };
        found.entries += 1;
        found.first.get_or_insert(index);
        found.last = Some(index);
        if previous.is_some_and(|previous| previous.saturating_add(1) != index) {
            found.say(format!("has a hole between {} and {index}", shown(previous)));
        }
        previous = Some(index);
        match decode_entry(&value) {
            Ok(entry) if entry.log_id.index == index => {}
            Ok(entry) => found.say(format!("entry {index} says that it is {}", entry.log_id.index)),
            Err(error) => found.say(format!("entry {index}: {error}")),
        }
    }
    Ok(())
}

impl LogInspection {
    fn say(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// Reads Raft's part of an open state database.
///
/// # Errors
/// When the database cannot be read; what does not decode is told in the answer.
pub fn inspect_state(db: &StateDb) -> Result<StatePosition, RaftError> {
    let mut found = StatePosition::default();
    let read = |key: &[u8]| db.get(Table::System, key);
    let (applied, installed) = (read(KEY_LAST_APPLIED)?, read(KEY_INSTALLED)?);
    let (synced, membership) = (read(KEY_LOG_SYNCED)?, read(KEY_MEMBERSHIP)?);
    let mut position = |bytes: Option<Vec<u8>>, what: &str| {
        let decoded = bytes.map(|bytes| decode::<LogIdRecord>(LOG_ID, &bytes)).transpose();
        match decoded {
            Ok(record) => record.map(LogId::from),
            Err(error) => {
                found.problems.push(format!("{what}: {error}"));
                None
            }
        }
    };
    let (applied, installed) =
        (position(applied, "last applied"), position(installed, "installed snapshot"));
    let synced = position(synced, "end of the synced log");
    found.applied = applied.map(|id| id.index);
    found.term = applied.map_or(0, |id| id.leader_id.term);
    found.installed = installed.map(|id| id.index);
    found.log_synced = synced.map(|id| id.index);
    if let Some(bytes) = membership {
        match decode_membership(&bytes) {
            Ok(stored) => {
                let nodes = stored.membership().nodes();
                found.members = nodes.map(|(id, node)| (node.name.clone(), *id)).collect();
            }
            Err(error) => found.problems.push(format!("membership: {error}")),
        }
    }
    Ok(found)
}

fn meta<T>(
    db: &DB,
    key: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, tercet_storage::CodecError>,
    problems: &mut Vec<String>,
) -> Option<T> {
    let name = String::from_utf8_lossy(key).into_owned();
    let read = column(db, LogColumn::Meta)
        .map_err(|error| error.to_string())
        .and_then(|handle| db.get_cf(handle, key).map_err(|error| error.to_string()));
    match read.and_then(|bytes| {
        bytes.map(|bytes| decode(&bytes).map_err(|error| error.to_string())).transpose()
    }) {
        Ok(value) => value,
        Err(problem) => {
            problems.push(format!("{name}: {problem}"));
            None
        }
    }
}

fn shown(index: Option<u64>) -> String {
    index.map_or_else(|| "its start".to_owned(), |index| index.to_string())
}

fn stopped(error: std::io::Error) -> RaftError {
    RaftError::Storage(StorageError::Io { operation: "open", path: "log".into(), source: error })
}
