//! Opens the databases, and decides which damage a replica may live with.

use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamilyDescriptor, DB, ErrorKind, Options};

use super::{LogColumn, options, wal};
use crate::durable::create_dir_durable;
use crate::error::StorageError;
use crate::fatal;
use crate::meta::Table;

/// Opens (or creates) the database of the Raft log and vote.
///
/// A torn end of the WAL was never acknowledged and is dropped. Damage before intact records means that
/// acknowledged entries or votes are lost: the database is refused with [`StorageError::Corrupt`].
pub fn open_log_db(path: &Path) -> Result<DB, StorageError> {
    create_dir_durable(path)?;
    refuse_damaged_wal(path)?;
    let mut database = options::common();
    database.set_track_and_verify_wals_in_manifest(true);
    open(path, &database, LogColumn::ALL.map(LogColumn::name).as_slice())
}

/// Opens (or creates) the database of the state machine.
///
/// Its WAL is never synced, so a power failure may tear it anywhere; it is cut at the first damage or gap. What
/// follows is applied again from the Raft log. All column families are flushed together, so that any such
/// prefix is one state the machine really had.
pub fn open_state_db(path: &Path) -> Result<DB, StorageError> {
    create_dir_durable(path)?;
    cut_damaged_wal(path)?;
    let mut database = options::common();
    database.set_atomic_flush(true);
    open(path, &database, Table::ALL.map(Table::name).as_slice())
}

/// Makes every write to `db` so far durable. A failure ends the process.
pub fn sync_wal(db: &DB) {
    if let Err(error) = db.flush_wal(true) {
        fatal::die("sync WAL of", db.path(), &error);
    }
}

/// RocksDB alone would pass over a zeroed block, would take a damaged length in the last block for the end of
/// the data, and would refuse a last record whose bytes did not all arrive. Only the newest file can have an
/// end that was never synced; that end is cut off, any other damage is refused.
fn refuse_damaged_wal(path: &Path) -> Result<(), StorageError> {
    let files = wal::files(path)?;
    for (index, file) in files.iter().enumerate() {
        let Some(damage) = wal::scan(file)?.damage else { continue };
        let newest = index + 1 == files.len();
        let goes_on = match damage.intact_after {
            Some(intact) => format!("goes on at byte {intact}"),
            None if !newest => "is followed by newer files".to_owned(),
            None => {
                tracing::warn!(path = %file.display(), at = damage.at, "cutting the torn end of the Raft log");
                wal::cut(file, damage.at)?;
                continue;
            }
        };
        let reason = format!("{} is damaged at byte {} and {goes_on}", file.display(), damage.at);
        return Err(StorageError::Corrupt { path: path.to_owned(), reason });
    }
    Ok(())
}

fn cut_damaged_wal(path: &Path) -> Result<(), StorageError> {
    for torn in torn_wals(path)? {
        tracing::warn!(path = %torn.path.display(), length = torn.keeps, why = torn.why, "cutting a WAL of the state");
        wal::cut(&torn.path, torn.keeps)?;
    }
    Ok(())
}

/// A write-ahead log of the state of which not all can be used.
pub(super) struct TornWal {
    path: PathBuf,
    /// The bytes of it that can be.
    keeps: u64,
    why: &'static str,
    /// Only the end of the newest one: RocksDB would stop there by itself.
    pub(super) is_end: bool,
}

/// What a start cuts off the write-ahead logs of the state, oldest first.
///
/// RocksDB alone would replay a file over a gap: an end that never reached the disk may have been a whole number
/// of records. It may find a gap where there is none, before files that are no longer needed; that costs only that
/// more is applied again. The Raft log is not cut in that way, since there it would lose what was acknowledged.
pub(super) fn torn_wals(path: &Path) -> Result<Vec<TornWal>, StorageError> {
    let files = wal::files(path)?;
    let mut torn = Vec::new();
    let mut intact = true;
    let mut reached = None;
    for (index, path) in files.iter().enumerate() {
        let mut cut = |keeps, why, is_end| {
            torn.push(TornWal { path: path.clone(), keeps, why, is_end });
        };
        if !intact {
            cut(0, "it follows a torn one", false);
            continue;
        }
        let found = wal::scan(path)?;
        let follows = match (reached, &found.batches) {
            (Some(reached), Some(batches)) => batches.start == reached,
            _ => true,
        };
        if !follows {
            cut(0, "it does not go on where the one before it ends", false);
            intact = false;
            continue;
        }
        if let Some(damage) = found.damage {
            let is_end = damage.intact_after.is_none() && index + 1 == files.len();
            cut(damage.at, "it is torn", is_end);
            intact = false;
        }
        match found.batches {
            Some(batches) => reached = Some(batches.end),
            // RocksDB begins no file before the last one has something (unless it makes them in advance,
            // `async_wal_precreate`, which is off): all of it was lost.
            None => intact = false,
        }
    }
    Ok(torn)
}

/// Whether RocksDB met the end of the volume, or of a quota. It has no error kind for that.
#[must_use]
pub fn is_full(error: &rocksdb::Error) -> bool {
    let text = error.to_string();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}

fn open(path: &Path, database: &Options, columns: &[&str]) -> Result<DB, StorageError> {
    let cache = options::cache();
    let columns =
        columns.iter().map(|name| ColumnFamilyDescriptor::new(*name, options::column(&cache)));
    DB::open_cf_descriptors(database, path, columns).map_err(|source| match source.kind() {
        ErrorKind::Corruption => {
            StorageError::Corrupt { path: path.to_owned(), reason: source.to_string() }
        }
        _ if is_full(&source) => {
            StorageError::VolumeFull { operation: "open", path: path.to_owned(), source }
        }
        // RocksDB reports its own lock file as an I/O error.
        ErrorKind::IOError if source.to_string().contains("/LOCK") => {
            StorageError::Locked { path: path.to_owned() }
        }
        _ => StorageError::Database { operation: "open", path: path.to_owned(), source },
    })
}
