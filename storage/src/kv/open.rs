//! Opens the databases, and decides which damage a replica may live with.

use std::path::Path;

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
/// Its WAL is never synced, so a power failure may tear it anywhere; it is cut at the first damage. What
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
        let Some(damage) = wal::scan(file)? else { continue };
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
    let mut files = wal::files(path)?.into_iter();
    for file in files.by_ref() {
        if let Some(damage) = wal::scan(&file)? {
            tracing::warn!(path = %file.display(), at = damage.at, "cutting a torn WAL of the state");
            wal::cut(&file, damage.at)?;
            break;
        }
    }
    // What was written after the damage is not a continuation of what was before it.
    for later in files {
        tracing::warn!(path = %later.display(), "emptying a WAL that follows a torn one");
        wal::cut(&later, 0)?;
    }
    Ok(())
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
