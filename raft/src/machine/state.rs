//! The state database and its replacement by a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::async_runtime::watch::WatchSender as _;
use openraft::type_config::TypeConfigExt as _;
use tercet_storage::codec::{decode, encode};
use tercet_storage::{
    AwaitedBlobRecord, CollectionHoldsRecord, DataDir, Digest, KvRead, MemberRecord, Meta,
    MetaBatch, StateDb, StorageError, Table, failpoint, fatal, sync_dir,
};

use super::apply;
use super::snapshot::SnapshotDir;
use crate::error::RaftError;
use crate::feature::{self, FEATURE_LEVEL};
use crate::outcome::Outcome;
use crate::records::{LOG_ID, LogIdRecord, decode_membership, encode_membership, to_io};
use crate::state_hash::{self, StateHash};
use crate::type_config::alias::{
    Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, WatchReceiver,
    WatchSender,
};
use crate::type_config::{NodeId, ReplicaNode, TypeConfig};

pub(crate) const KEY_LAST_APPLIED: &[u8] = b"last_applied";
pub(crate) const KEY_MEMBERSHIP: &[u8] = b"membership";
/// Position of the snapshot this database came from: the log may end before it.
pub(crate) const KEY_INSTALLED: &[u8] = b"installed_snapshot";
/// An applied entry up to which this replica's log was synced when the state was last written. Entries are applied
/// once a majority has them, which this replica need not be part of: a power loss may take entries from the log that
/// the state has.
pub(crate) const KEY_LOG_SYNCED: &[u8] = b"log_synced";

/// What a new state says in its place: entries are applied to it before any of its log is known to be synced. A state of
/// an older version says nothing instead.
pub(crate) fn nothing_synced() -> LogId {
    LogId { leader_id: LeaderId { term: 0, node_id: 0 }, index: 0 }
}

/// Records read at once while a received checkpoint is verified.
const VERIFY_PAGE: usize = 64;

/// The metadata of this replica: read by everyone, written by apply and snapshot installation only.
pub(crate) struct State {
    data: DataDir,
    /// `None` only while a snapshot takes the database's place.
    db: RwLock<Option<StateDb>>,
    /// Held while writing and while taking a checkpoint, so that a checkpoint lies between batches.
    writing: Mutex<()>,
    /// A snapshot waits for the database: whoever reads it for long lets go.
    replacing: AtomicBool,
    /// The replica stops: the same.
    stopping: AtomicBool,
    applied: WatchSender<Option<u64>>,
    /// Tells up to where the log is synced, once Raft runs.
    log_synced: OnceLock<LogSynced>,
    /// What this replica understands.
    feature_level: u32,
}

/// Up to where the log is surely synced.
pub(crate) type LogSynced = Box<dyn Fn() -> Option<LogId> + Send + Sync>;

/// What a batch of entries brought about, in order.
pub(crate) struct Applied {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) blobs: Vec<(Digest, u64)>,
    pub(super) collected: Vec<Digest>,
}

impl State {
    pub(crate) fn open(data: &DataDir) -> Result<Self, RaftError> {
        recover_interrupted_install(data)?;
        let db = StateDb::open(&data.state())?;
        let last = last_applied(&db)?;
        let (applied, _) = TypeConfig::watch_channel(last.map(|id| id.index));
        Ok(Self {
            data: data.clone(),
            db: RwLock::new(Some(db)),
            writing: Mutex::new(()),
            replacing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            applied,
            log_synced: OnceLock::new(),
            feature_level: FEATURE_LEVEL,
        })
    }

    /// For a replica that takes part with this feature level; an error if the state is above it.
    pub(super) fn limited_to(mut self, feature_level: u32) -> Result<Self, RaftError> {
        self.feature_level = feature_level;
        let checked = self.read(|meta| feature::check_state(feature_level, meta));
        checked.map_err(|error| RaftError::Stopped(error.to_string()))??;
        Ok(self)
    }

    /// Runs `read` on the current database. Short and synchronous: a snapshot installation waits for
    /// it to end.
    pub(crate) fn read<T>(&self, read: impl FnOnce(Meta<'_, StateDb>) -> T) -> io::Result<T> {
        self.with_db(|db| Ok(read(Meta(db))))
    }

    pub(crate) fn watch_applied(&self) -> WatchReceiver<Option<u64>> {
        self.applied.subscribe()
    }

    /// Whether or not anybody waits for it.
    fn tell_applied(&self, index: Option<u64>) {
        self.applied.send_if_modified(|applied| {
            *applied = index;
            true
        });
    }

    /// From now on the state remembers how far the log is synced.
    pub(crate) fn follow_log(&self, synced: LogSynced) {
        // Once in the life of a replica.
        let _ = self.log_synced.set(synced);
    }

    fn synced(&self) -> Option<LogId> {
        self.log_synced.get().and_then(|synced| synced())
    }

    /// The entry that the log has to reach, whatever happened to the machine: perhaps [`nothing_synced`]. `None` if an older
    /// version wrote this.
    pub(crate) fn log_must_reach(&self) -> io::Result<Option<LogId>> {
        self.with_db(|db| position(db, KEY_LOG_SYNCED).map_err(to_io))
    }

    /// As an older version would have left it.
    #[cfg(test)]
    pub(crate) fn forget_log_synced(&self) -> io::Result<()> {
        self.with_db(|db| {
            let mut batch = MetaBatch::new(db);
            batch.delete(Table::System, KEY_LOG_SYNCED);
            batch.commit().map_err(to_io)
        })
    }

    /// Index of the snapshot this database came from, if it did.
    pub(crate) fn installed_index(&self) -> io::Result<Option<u64>> {
        Ok(self.installed()?.map(|id| id.index))
    }

    /// Position of that snapshot.
    pub(crate) fn installed(&self) -> io::Result<Option<LogId>> {
        self.with_db(|db| position(db, KEY_INSTALLED).map_err(to_io))
    }

    /// From now on the log may begin behind this state, as if it had come as a snapshot. Durable on return.
    pub(crate) fn take_as_installed(&self) -> io::Result<Option<LogId>> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.with_db(|db| {
            let applied = last_applied(db).map_err(to_io)?;
            if let Some(id) = applied {
                let mut batch = MetaBatch::new(db);
                let bytes = encode(LOG_ID, &LogIdRecord::from(&id)).map_err(to_io)?;
                batch.put(Table::System, KEY_INSTALLED, bytes);
                batch.commit().map_err(to_io)?;
                db.flush_wal();
            }
            Ok(applied)
        })
    }

    /// Ends what reads for long.
    pub(crate) fn let_go(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The digest of all that the log has brought about up to one entry. Reads everything: not for a thread that
    /// others wait for.
    pub(crate) fn hash(&self) -> io::Result<StateHash> {
        self.with_db(|db| {
            let go_on = || {
                !self.replacing.load(Ordering::Acquire) && !self.stopping.load(Ordering::Acquire)
            };
            state_hash::of(db, go_on)?.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::Interrupted,
                    "a snapshot takes the place of the state while it is read, or the replica stops: ask again",
                )
            })
        })
    }

    pub(crate) fn applied(&self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.with_db(|db| Ok((last_applied(db).map_err(to_io)?, membership(db)?)))
    }

    /// Applies entries in one write batch.
    pub(crate) fn apply(&self, entries: Vec<Entry>) -> io::Result<Applied> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = self.with_db(|db| {
            let mut batch = MetaBatch::new(db);
            let mut applied = Applied {
                outcomes: Vec::with_capacity(entries.len()),
                blobs: Vec::new(),
                collected: Vec::new(),
            };
            let mut last = None;
            let mut members_change = false;
            for entry in entries {
                last = Some(entry.log_id);
                let outcome = match entry.payload {
                    Payload::Blank => Outcome::Done,
                    Payload::Membership(membership) => {
                        let stored = StoredMembership::new(Some(entry.log_id), membership);
                        let bytes = encode_membership(&stored).map_err(to_io)?;
                        batch.put(Table::System, KEY_MEMBERSHIP, bytes);
                        members_change = true;
                        Outcome::Done
                    }
                    Payload::Normal(proposal) => {
                        feature::check_command(self.feature_level, &proposal.command)?;
                        apply::apply(&mut batch, proposal, &mut applied.blobs).map_err(to_io)?
                    }
                };
                if let Outcome::Collected(digests) = &outcome {
                    applied.collected.extend_from_slice(digests);
                }
                applied.outcomes.push(outcome);
            }
            if let Some(id) = last {
                let bytes = encode(LOG_ID, &LogIdRecord::from(&id)).map_err(to_io)?;
                batch.put(Table::System, KEY_LAST_APPLIED, bytes);
                // What is applied is never cut off the log again; what lies behind may be. An entry of another leader may be
                // one that this leader's have replaced.
                let followed = self.synced();
                let followed =
                    followed.filter(|synced| *synced >= id || synced.leader_id == id.leader_id);
                let synced = match followed {
                    Some(synced) => Some(synced.min(id)),
                    None if self.applied.borrow_watched().is_none() => Some(nothing_synced()),
                    None => None,
                };
                if let Some(synced) = synced {
                    let bytes = encode(LOG_ID, &LogIdRecord::from(&synced)).map_err(to_io)?;
                    batch.put(Table::System, KEY_LOG_SYNCED, bytes);
                }
            }
            failpoint::hit("state.before_commit");
            if members_change {
                failpoint::hit("state.before_membership");
            }
            // A database that refuses a write is in an unknown state, as after a failed fsync.
            if let Err(error) = batch.commit() {
                fatal::die("write the state database", &self.data.state(), &error);
            }
            failpoint::hit("state.after_commit");
            if members_change {
                failpoint::hit("state.after_membership");
            }
            Ok((applied, last))
        })?;
        let (applied, last) = applied;
        if let Some(id) = last {
            self.tell_applied(Some(id.index));
        }
        Ok(applied)
    }

    /// Writes a checkpoint into `dir` and says what it contains. When this returns, everything in it
    /// is on disk, and so is the live database up to there: the log may be purged behind it.
    pub(crate) fn checkpoint(&self, dir: &std::path::Path) -> io::Result<SnapshotMeta> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.with_db(|db| {
            db.flush_wal();
            db.checkpoint(dir).map_err(to_io)?;
            Ok(SnapshotMeta {
                last_log_id: last_applied(db).map_err(to_io)?,
                last_membership: membership(db)?,
            })
        })
    }

    /// Puts a received checkpoint in the place of the database.
    ///
    /// Order: check what it contains, mark it, set the old database aside, rename the new one in,
    /// fsync the parent, open, throw the old one away. [`recover_interrupted_install`] handles a
    /// crash between any two of these.
    pub(super) fn install(&self, meta: &SnapshotMeta, received: SnapshotDir) -> io::Result<()> {
        let incoming = received.path().to_owned();
        prepare_incoming(&incoming, meta, self.feature_level)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.replacing.store(true, Ordering::Release);
        let mut slot = self.write_slot();
        self.replacing.store(false, Ordering::Release);
        // Closing the old database releases its lock file before the rename.
        *slot = None;
        let (current, backup) = (self.data.state(), backup_path(&self.data));
        let swap = || -> io::Result<StateDb> {
            std::fs::rename(&current, &backup)?;
            failpoint::hit("snapshot.install_old_aside");
            std::fs::rename(&incoming, &current)?;
            failpoint::hit("snapshot.install_new_in");
            sync_dir(self.data.root()).map_err(to_io)?;
            failpoint::hit("snapshot.install_durable");
            StateDb::open(&current).map_err(to_io)
        };
        // Half-way there is no database to serve from; the next start finishes or undoes the swap.
        let db = match swap() {
            Ok(db) => db,
            Err(error) => fatal::die("install a snapshot", &current, &error),
        };
        received.keep();
        let last = last_applied(&db).map_err(to_io)?;
        *slot = Some(db);
        drop(slot);
        self.tell_applied(last.map(|id| id.index));
        if let Err(error) = std::fs::remove_dir_all(&backup) {
            tracing::warn!(path = %backup.display(), %error, "cannot remove the replaced state database");
        }
        Ok(())
    }

    /// Makes this the state of a new cluster whose only member is `node_id`: all other ids retire, the
    /// log may end where the state does. Durable on return; answers where that is. Never for a
    /// database that a replica will open again under its old identity.
    pub(crate) fn found_anew(
        &self,
        node_id: NodeId,
        node: &ReplicaNode,
        at_ms: u64,
    ) -> io::Result<LogId> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.with_db(|db| {
            let last = last_applied(db).map_err(to_io)?.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "nothing was ever applied to this state")
            })?;
            let mut batch = MetaBatch::new(db);
            for (name, member) in Meta(db).members().map_err(to_io)? {
                batch.delete_member(&name);
                batch.delete_leaving(&name);
                batch.put_retired(member.node_id);
            }
            for (id, _) in membership(db)?.membership().nodes() {
                batch.put_retired(*id);
            }
            // Else it would pass for a cluster that an operator has made this small.
            batch.forget_removals().map_err(to_io)?;
            let record = MemberRecord { node_id, admitted_ms: at_ms };
            batch.put_member(&node.name, &record).map_err(to_io)?;
            if !Meta(db).collection_holds().map_err(to_io)?.is_empty() {
                // Of a backup, perhaps the one that this comes from.
                let none = CollectionHoldsRecord { holds: Vec::new() };
                batch.put_collection_holds(&none).map_err(to_io)?;
            }
            let nodes = BTreeMap::from([(node_id, node.clone())]);
            let alone = Membership::new(vec![BTreeSet::from([node_id])], nodes)
                .map_err(|error| io::Error::other(error.to_string()))?;
            let stored = StoredMembership::new(Some(last), alone);
            let bytes = encode_membership(&stored).map_err(to_io)?;
            batch.put(Table::System, KEY_MEMBERSHIP, bytes);
            let bytes = encode(LOG_ID, &LogIdRecord::from(&last)).map_err(to_io)?;
            batch.put(Table::System, KEY_INSTALLED, bytes);
            batch.commit().map_err(to_io)?;
            db.flush().map_err(to_io)?;
            db.flush_wal();
            Ok(last)
        })
    }

    /// Makes blobs unknown whose bytes are gone. What names them awaits them from then on, as if it had been
    /// pushed without them.
    pub(crate) fn forget_blobs(&self, lost: &[Digest]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.with_db(|db| {
            let mut batch = MetaBatch::new(db);
            for digest in lost {
                for repository in Meta(db).blob_repositories(digest, usize::MAX).map_err(to_io)? {
                    let link = Meta(db).blob_link(&repository, digest).map_err(to_io)?;
                    batch.delete_blob_link(&repository, digest);
                    if let Some(references) = link.map(|link| link.references).filter(|n| *n > 0) {
                        let awaited = AwaitedBlobRecord { references };
                        batch.put_awaited_blob(&repository, digest, &awaited).map_err(to_io)?;
                    }
                }
                batch.delete_blob(digest);
            }
            batch.commit().map_err(to_io)
        })
    }

    fn with_db<T>(&self, run: impl FnOnce(&StateDb) -> io::Result<T>) -> io::Result<T> {
        let slot: RwLockReadGuard<'_, _> = self.db.read().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(db) => run(db),
            None => Err(io::Error::other("the state database is being replaced")),
        }
    }

    fn write_slot(&self) -> RwLockWriteGuard<'_, Option<StateDb>> {
        self.db.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads all of a received checkpoint: it must be what was announced, and every block must pass its
/// checksum. The sender's digests were taken of its own files and say nothing about rot in them, and a
/// snapshot that fails after Raft has accepted it ends the process.
pub(crate) fn verify_checkpoint(dir: &std::path::Path, meta: &SnapshotMeta) -> io::Result<()> {
    let db = StateDb::open(dir).map_err(to_io)?;
    check_announced(&db, meta)?;
    for table in Table::ALL {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = db.scan(table, b"", after.as_deref(), VERIFY_PAGE).map_err(to_io)?;
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
    }
    Ok(())
}

fn check_announced(db: &StateDb, meta: &SnapshotMeta) -> io::Result<()> {
    let contained = last_applied(db).map_err(to_io)?;
    if contained == meta.last_log_id {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a snapshot announced {:?} but contains {contained:?}", meta.last_log_id),
    ))
}

/// Opens the received checkpoint once: it must contain exactly what was announced, and it is marked
/// as installed so that a later start knows why the log ends before it.
fn prepare_incoming(
    incoming: &std::path::Path,
    meta: &SnapshotMeta,
    feature_level: u32,
) -> io::Result<()> {
    let db = StateDb::open(incoming).map_err(to_io)?;
    feature::check_state(feature_level, Meta(&db)).map_err(io::Error::other)?;
    check_announced(&db, meta)?;
    if let Some(id) = meta.last_log_id {
        let mut batch = MetaBatch::new(&db);
        let bytes = encode(LOG_ID, &LogIdRecord::from(&id)).map_err(to_io)?;
        batch.put(Table::System, KEY_INSTALLED, bytes);
        batch.commit().map_err(to_io)?;
    }
    db.flush_wal();
    failpoint::hit("snapshot.install_prepared");
    Ok(())
}

fn backup_path(data: &DataDir) -> PathBuf {
    data.root().join("state.replaced")
}

/// After a crash during [`State::install`]: with a database in place, the swap had happened and the
/// old one is rubbish; without one, the old one goes back.
fn recover_interrupted_install(data: &DataDir) -> Result<(), RaftError> {
    let (current, backup) = (data.state(), backup_path(data));
    let io_error = |operation: &'static str, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| RaftError::Storage(StorageError::Io { operation, path, source })
    };
    if backup.exists() {
        if current.exists() {
            std::fs::remove_dir_all(&backup).map_err(io_error("remove", &backup))?;
        } else {
            std::fs::rename(&backup, &current).map_err(io_error("rename", &backup))?;
        }
        sync_dir(data.root())?;
    }
    Ok(())
}

fn last_applied(db: &StateDb) -> Result<Option<LogId>, StorageError> {
    position(db, KEY_LAST_APPLIED)
}

fn position(db: &StateDb, key: &[u8]) -> Result<Option<LogId>, StorageError> {
    let bytes = db.get(Table::System, key)?;
    let record: Option<LogIdRecord> = bytes.map(|bytes| decode(LOG_ID, &bytes)).transpose()?;
    Ok(record.map(LogId::from))
}

fn membership(db: &StateDb) -> io::Result<StoredMembership> {
    match db.get(Table::System, KEY_MEMBERSHIP).map_err(to_io)? {
        None => Ok(StoredMembership::default()),
        Some(bytes) => decode_membership(&bytes),
    }
}
