//! The last resort: a new cluster of one replica out of what one surviving disk, or a backup, still has.
//!
//! The new cluster gets an id of its own, and its only member a new Raft id. Both matter: a replica of the
//! old cluster that turns up later belongs to another history, and is refused.
//!
//! Order, so that no step leaves a directory which starts under the old identity with a changed state: all
//! that is new is prepared in `refound.new` beside the old, to its identity; then a mark takes the place of
//! `identity.json`, with which no replica starts; then the old databases go aside and the new ones in; the
//! new identity is last. Before the mark, running it again starts over; after it, it goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};
use tercet_storage::codec::encode;
use tercet_storage::{
    DataDir, Digest, LogColumn, Meta, StateDb, StorageError, atomic_write, create_dir_durable,
    failpoint, open_log_db, remove_dir_durable, sync_dir, sync_wal, utc_stamp,
};

use crate::error::RaftError;
use crate::feature;
use crate::identity::Identity;
use crate::log::{KEY_COMMITTED, KEY_PURGED, KEY_VOTE, LogStore, column};
use crate::machine::State;
use crate::records::{LOG_ID, LogIdRecord, VOTE, VoteRecord};
use crate::type_config::alias::{LeaderId, LogId, Vote};
use crate::type_config::{NodeId, ReplicaNode};

/// Where the new databases are prepared, below the data directory.
const PREPARED: &str = "refound.new";
/// What the folder of the old databases begins with; the time follows.
const ASIDE_PREFIX: &str = "before-recovery-";

/// The only member of the new cluster.
#[derive(Debug, Clone)]
pub struct Founder {
    /// Its configured name.
    pub name: String,
    /// Base URL of its peer listener, as configured.
    pub address: String,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What to do with entries of the surviving log that are not in the surviving state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurvivingLog {
    /// Apply all of them. Those up to the last known committed position surely happened. Those behind it
    /// either happened without this replica having heard of it, or were answered "unknown": a client that
    /// was told of success must find its push, and no other was told anything.
    Apply,
    /// The log cannot be read, or is not to be trusted: what the state holds is all.
    Ignore,
}

/// What becomes of the old databases and the old identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// They stay, in a dated folder of the data directory.
    Keep,
    /// They are removed once the new cluster is founded.
    Remove,
}

/// A new cluster.
#[derive(Debug, Clone)]
pub struct Refounded {
    /// The new identity, on disk.
    pub identity: Identity,
    /// Index of the last entry that the state holds; the new log begins behind it.
    pub applied: u64,
    /// Where the old databases are, if they were kept.
    pub evidence: Option<PathBuf>,
}

/// What stands in `identity.json` while a directory belongs to no cluster: whoever made it must finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    /// The command that was interrupted.
    pub unfinished: Task,
    /// The replica's name.
    pub name: String,
    /// For a restore: the backup it restores.
    pub backup: Option<String>,
    /// For a recovery: the folder of the old databases, and whether it stays.
    aside: Option<(String, Evidence)>,
}

/// What can be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// `tercet recover`.
    Recover,
    /// `tercet restore`.
    Restore,
}

impl Unfinished {
    /// Reads the mark, if there is one.
    ///
    /// # Errors
    /// When `identity.json` cannot be read.
    pub fn load(data: &DataDir) -> Result<Option<Self>, RaftError> {
        let path = data.identity();
        match fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StorageError::Io { operation: "read", path, source }.into()),
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The error of a start that meets the mark.
    pub(crate) fn refusal(&self, data: &DataDir) -> RaftError {
        let command = match self.unfinished {
            Task::Recover => "recover",
            Task::Restore => "restore",
        };
        RaftError::Unfinished { path: data.root().to_owned(), command }
    }

    fn store(&self, data: &DataDir) -> Result<(), RaftError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| RaftError::Identity {
            path: data.identity(),
            reason: error.to_string(),
        })?;
        Ok(atomic_write(&data.identity(), &bytes)?)
    }
}

/// What a surviving data directory says about itself.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Who it was.
    pub identity: Identity,
    /// Term of the last applied entry.
    pub term: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index up to which this replica knew the log to be committed; at least `applied`.
    pub committed: u64,
    /// Index of the last entry in the log; `None` if the log cannot be read.
    pub log_end: Option<u64>,
    /// Why the log cannot be used, if it cannot.
    pub log_problem: Option<String>,
    /// The members as of the last applied entry: name, id, address of the peer listener.
    pub members: Vec<(String, NodeId, String)>,
}

/// An open data directory whose replica does not run. The caller holds its lock.
pub struct Survivor {
    data: DataDir,
    state: State,
    log: Option<LogStore>,
    survey: Survey,
}

impl Survivor {
    /// Opens what is left. A log that cannot be read is told and not an error; a state that cannot is.
    ///
    /// # Errors
    /// [`RaftError::Unfinished`] when a recovery or a restore was interrupted here (see [`resume`]);
    /// otherwise when there is no identity, or no state that a cluster could begin with.
    pub async fn open(data: &DataDir) -> Result<Self, RaftError> {
        let Some(identity) = Identity::load(data)? else {
            return Err(impossible("it has no identity: no replica was ever started on it"));
        };
        if !data.state().join("CURRENT").exists()
            && !data.root().join("state.replaced").join("CURRENT").exists()
        {
            return Err(impossible("it has no state database"));
        }
        let state = State::open(data)?;
        check_level(&state)?;
        let (applied, membership) = state.applied().map_err(damaged)?;
        let Some(applied) = applied else {
            return Err(impossible("nothing was ever applied to its state"));
        };
        let mut survey = Survey {
            identity,
            term: applied.leader_id.term,
            applied: applied.index,
            committed: applied.index,
            log_end: None,
            log_problem: None,
            members: membership
                .membership()
                .nodes()
                .map(|(id, node)| (node.name.clone(), *id, node.address.clone()))
                .collect(),
        };
        let log = match look_at_log(data, &applied, &mut survey).await {
            Ok(log) => Some(log),
            Err(error) => {
                survey.log_problem = Some(error.to_string());
                None
            }
        };
        Ok(Self { data: data.clone(), state, log, survey })
    }

    /// What it found.
    #[must_use]
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Reads the surviving metadata, as of the last applied entry.
    ///
    /// # Errors
    /// When the database is gone, which it is not.
    pub fn read<T>(&self, read: impl FnOnce(Meta<'_, StateDb>) -> T) -> io::Result<T> {
        self.state.read(read)
    }

    /// Founds the new cluster in place. Blobs, quarantine and uploads stay where they are. The blobs of
    /// `forget` are unknown to the new cluster: a client that pushes an image which names one uploads it
    /// again.
    ///
    /// # Errors
    /// Before the point of no return the directory is as it was; after it, [`resume`] goes on.
    pub async fn refound(
        self,
        founder: &Founder,
        log: SurvivingLog,
        evidence: Evidence,
        forget: &[Digest],
    ) -> Result<Refounded, RaftError> {
        let fresh = start_over(&self.data)?;
        self.state.checkpoint(&fresh.state()).map_err(damaged)?;
        failpoint::hit("refound.state_copied");
        let state = State::open(&fresh)?;
        match (log, &self.log) {
            (SurvivingLog::Ignore, _) => {}
            (SurvivingLog::Apply, Some(log)) => apply_rest(&state, log).await?,
            (SurvivingLog::Apply, None) => {
                let reason = self.survey.log_problem.as_deref().unwrap_or_default();
                return Err(impossible(&format!("its log cannot be read ({reason})")));
            }
        }
        state.forget_blobs(forget).map_err(damaged)?;
        prepare(&state, &fresh, founder)?;
        let Self { data, state: old, log, .. } = self;
        drop((state, old, log));
        let aside = format!("{ASIDE_PREFIX}{}", utc_stamp(founder.now_ms));
        let directory = data.root().join(&aside);
        create_dir_durable(&directory)?;
        let identity = fs::read(data.identity()).map_err(io_error("read", &data.identity()))?;
        atomic_write(&directory.join("identity.json"), &identity)?;
        failpoint::hit("refound.identity_copied");
        let mark = Unfinished {
            unfinished: Task::Recover,
            name: founder.name.clone(),
            backup: None,
            aside: Some((aside, evidence)),
        };
        mark.store(&data)?;
        failpoint::hit("refound.marked");
        finish(&data, &mark)
    }
}

impl std::fmt::Debug for Survivor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survivor").field("survey", &self.survey).finish_non_exhaustive()
    }
}

/// Goes on with a recovery that was interrupted after the point of no return; `None` if there was none.
///
/// # Errors
/// When it was a restore, or one under another name; or when the disk fails.
pub fn resume(data: &DataDir, name: &str) -> Result<Option<Refounded>, RaftError> {
    let Some(mark) = Unfinished::load(data)? else { return Ok(None) };
    if mark.unfinished != Task::Recover {
        return Err(mark.refusal(data));
    }
    if mark.name != name {
        return Err(impossible(&format!(
            "a recovery for the replica `{}` was begun here, finish it under that name",
            mark.name
        )));
    }
    finish(data, &mark).map(Some)
}

/// Begins to make a data directory out of a backup: nothing starts on it until [`refound_checkpoint`] is
/// through. What an earlier attempt at the same backup left of databases is removed; its blobs stay.
///
/// # Errors
/// When the directory belongs to a replica, or to the restore of another backup.
pub fn begin_restore(data: &DataDir, name: &str, backup: &str) -> Result<(), RaftError> {
    let mark = Unfinished {
        unfinished: Task::Restore,
        name: name.to_owned(),
        backup: Some(backup.to_owned()),
        aside: None,
    };
    match Unfinished::load(data)? {
        Some(other) if other == mark => {}
        Some(other) => return Err(other.refusal(data)),
        None if data.identity().exists() => {
            return Err(impossible("a replica's identity is there already"));
        }
        None => mark.store(data)?,
    }
    start_over(data)?;
    for path in [data.log(), data.state(), data.snapshots()] {
        remove_dir_durable(&path)?;
    }
    Ok(())
}

/// Where the files of the backup's checkpoint have to be, for [`refound_checkpoint`].
#[must_use]
pub fn restored_state(data: &DataDir) -> PathBuf {
    DataDir::new(data.root().join(PREPARED)).state()
}

/// Founds a new cluster from the checkpoint at [`restored_state`], in a directory that
/// [`begin_restore`] marked. The blobs of `forget` are unknown to the new cluster, as for
/// [`Survivor::refound`]. The new identity is written last.
///
/// # Errors
/// When there is no mark, or the checkpoint is no state of a cluster.
pub fn refound_checkpoint(
    data: &DataDir,
    founder: &Founder,
    forget: &[Digest],
) -> Result<Refounded, RaftError> {
    let Some(mark) = Unfinished::load(data)?.filter(|mark| mark.unfinished == Task::Restore) else {
        return Err(impossible("no restore was begun here"));
    };
    let fresh = DataDir::new(data.root().join(PREPARED));
    let state = State::open(&fresh)?;
    check_level(&state)?;
    state.forget_blobs(forget).map_err(damaged)?;
    prepare(&state, &fresh, founder)?;
    drop(state);
    finish(data, &mark)
}

async fn look_at_log(
    data: &DataDir,
    applied: &LogId,
    survey: &mut Survey,
) -> Result<LogStore, RaftError> {
    if !data.log().join("CURRENT").exists() {
        return Err(impossible("there is no log database"));
    }
    let mut log = LogStore::open(&data.log())?;
    let last = log.get_log_state().await.map_err(damaged)?.last_log_id;
    // What the last entry of the state has replaced was never committed.
    let end = last.filter(|last| last > applied).map_or(applied.index, |last| last.index);
    let purged = log.purged_index().map_err(damaged)?.unwrap_or(0);
    if purged > survey.applied {
        return Err(impossible(&format!(
            "it begins behind {purged} and the state ends at {}: entries between them are lost",
            survey.applied
        )));
    }
    let committed = log.read_committed().await.map_err(damaged)?.map_or(0, |id| id.index);
    survey.log_end = Some(end);
    survey.committed = committed.min(end).max(survey.applied);
    Ok(log)
}

/// A state that a newer version wrote is not this one's to change.
fn check_level(state: &State) -> Result<(), RaftError> {
    let record = state.read(|meta| meta.feature_level()).map_err(damaged)??;
    feature::check(feature::own_feature_level(), record.as_ref())
}

/// Applies what the log has beyond the state.
async fn apply_rest(state: &State, log: &LogStore) -> Result<(), RaftError> {
    let mut reader = log.clone().get_log_reader().await;
    let end = log.last_index().map_err(damaged)?.map_or(0, |last| last.saturating_add(1));
    let applied = state.applied().map_err(damaged)?.0;
    if log.clone().get_log_state().await.map_err(damaged)?.last_log_id <= applied {
        return Ok(());
    }
    let mut next = applied.map_or(0, |id| id.index.saturating_add(1));
    while next < end {
        let entries = reader.limited_get_log_entries(next, end).await.map_err(damaged)?;
        let Some(last) = entries.last() else { break };
        next = last.log_id.index.saturating_add(1);
        state.apply(entries).map_err(damaged)?;
    }
    failpoint::hit("refound.log_applied");
    Ok(())
}

/// An empty place for the new databases.
fn start_over(data: &DataDir) -> Result<DataDir, RaftError> {
    let fresh = DataDir::new(data.root().join(PREPARED));
    remove_dir_durable(fresh.root())?;
    create_dir_durable(fresh.root())?;
    Ok(fresh)
}

/// Turns the copied state into that of the new cluster and gives it a log. The identity is written last:
/// with it, everything is there and durable.
fn prepare(state: &State, fresh: &DataDir, founder: &Founder) -> Result<(), RaftError> {
    let identity = Identity { founder: false, ..Identity::found(&founder.name, founder.now_ms) };
    let node = ReplicaNode {
        name: founder.name.clone(),
        address: founder.address.clone(),
        ..ReplicaNode::default()
    };
    let last = state.found_anew(identity.node_id, &node, founder.now_ms).map_err(damaged)?;
    failpoint::hit("refound.state_changed");
    create_log(&fresh.log(), last, identity.node_id)?;
    failpoint::hit("refound.log_made");
    sync_dir(fresh.root())?;
    identity.store(fresh)?;
    failpoint::hit("refound.prepared");
    Ok(())
}

/// A log that was purged up to `last`, on a disk that has voted in the term after it: the first election
/// of the new cluster is then behind everything the old one did.
fn create_log(path: &Path, last: LogId, node_id: NodeId) -> Result<(), RaftError> {
    let db = open_log_db(path)?;
    let term = last.leader_id.term.saturating_add(1);
    let vote = Vote { leader_id: LeaderId { term, node_id }, committed: false };
    let position = encode(LOG_ID, &LogIdRecord::from(&last)).map_err(StorageError::from)?;
    let vote = encode(VOTE, &VoteRecord::from(&vote)).map_err(StorageError::from)?;
    let meta = column(&db, LogColumn::Meta).map_err(damaged)?;
    let mut batch = WriteBatch::default();
    batch.put_cf(meta, KEY_PURGED, &position);
    batch.put_cf(meta, KEY_COMMITTED, &position);
    batch.put_cf(meta, KEY_VOTE, vote);
    db.write(batch).map_err(|source| StorageError::Database {
        operation: "write",
        path: path.to_owned(),
        source,
    })?;
    sync_wal(&db);
    drop(db);
    Ok(sync_dir(path)?)
}

/// Everything behind the mark. Each step looks at whether it was done already.
fn finish(data: &DataDir, mark: &Unfinished) -> Result<Refounded, RaftError> {
    let fresh = DataDir::new(data.root().join(PREPARED));
    let Some(identity) = Identity::load(&fresh)? else {
        return Err(impossible("what was prepared for the new cluster is gone"));
    };
    let aside = mark.aside.as_ref().map(|(name, evidence)| (data.root().join(name), *evidence));
    // The replaced state of an interrupted snapshot, and snapshots, have no successor.
    for name in ["state.replaced", "snapshots", "log", "state"] {
        let (old, new) = (data.root().join(name), fresh.root().join(name));
        let replaced = new.exists();
        if old.exists() && (replaced || !matches!(name, "log" | "state")) {
            match &aside {
                Some((aside, _)) => rename(&old, &aside.join(name))?,
                None => remove_dir_durable(&old)?,
            }
            failpoint::hit("refound.old_aside");
        }
        if replaced {
            rename(&new, &old)?;
            failpoint::hit("refound.new_in");
        }
    }
    if let Some((aside, _)) = &aside {
        sync_dir(aside)?;
    }
    sync_dir(data.root())?;
    failpoint::hit("refound.before_identity");
    rename(&fresh.identity(), &data.identity())?;
    sync_dir(data.root())?;
    failpoint::hit("refound.after_identity");
    remove_dir_durable(fresh.root())?;
    let evidence = match aside {
        Some((aside, Evidence::Remove)) => {
            remove_dir_durable(&aside)?;
            None
        }
        Some((aside, Evidence::Keep)) => Some(aside),
        None => None,
    };
    let state = State::open(data)?;
    let applied = state.applied().map_err(damaged)?.0.map_or(0, |id| id.index);
    Ok(Refounded { identity, applied, evidence })
}

fn rename(from: &Path, to: &Path) -> Result<(), RaftError> {
    Ok(fs::rename(from, to).map_err(io_error("rename", from))?)
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { operation, path, source }
}

fn impossible(why: &str) -> RaftError {
    RaftError::Refound(why.to_owned())
}

fn damaged(error: io::Error) -> RaftError {
    RaftError::Refound(error.to_string())
}
