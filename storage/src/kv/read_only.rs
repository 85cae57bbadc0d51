//! Opens databases without changing a byte of them.

use std::path::Path;

use rocksdb::{ColumnFamilyDescriptor, DB, Options};

use super::{LogColumn, open, options, wal};
use crate::error::StorageError;

/// Opens what is there of `columns`. A torn end of the write-ahead log is passed over and not cut.
pub(crate) fn open_read_only(path: &Path, columns: &[&str]) -> Result<DB, StorageError> {
    let database =
        |source| StorageError::Database { operation: "open", path: path.to_owned(), source };
    let present = DB::list_cf(&Options::default(), path).map_err(database)?;
    let cache = options::cache();
    let descriptors = columns
        .iter()
        .filter(|name| present.iter().any(|present| present == *name))
        .map(|name| ColumnFamilyDescriptor::new(*name, options::column(&cache)));
    let mut settings = options::common();
    settings.create_if_missing(false);
    settings.create_missing_column_families(false);
    DB::open_cf_descriptors_read_only(&settings, path, descriptors, false).map_err(|source| {
        match source.kind() {
            rocksdb::ErrorKind::Corruption => {
                StorageError::Corrupt { path: path.to_owned(), reason: source.to_string() }
            }
            _ => database(source),
        }
    })
}

/// Opens the log database without changing a byte of it, for a look at a replica that does not run.
pub fn open_log_db_read_only(path: &Path) -> Result<DB, StorageError> {
    open_read_only(path, LogColumn::ALL.map(LogColumn::name).as_slice())
}

/// What is wrong with the write-ahead logs of the database at `path`, in words. A torn end of the newest is
/// what a power failure leaves, and not told.
pub fn wal_damage(path: &Path) -> Result<Vec<String>, StorageError> {
    let files = wal::files(path)?;
    let mut found = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let Some(damage) = wal::scan(file)?.damage else { continue };
        let newest = index + 1 == files.len();
        let how = match damage.intact_after {
            Some(intact) => format!("and goes on at byte {intact}"),
            None if !newest => "and newer files follow".to_owned(),
            None => continue,
        };
        found.push(format!("{} is damaged at byte {} {how}", file.display(), damage.at));
    }
    Ok(found)
}

/// Whether a loss of power has left something in the write-ahead logs of the state at `path` that a start does not
/// use: then what [`StateDb::open_read_only`](crate::StateDb::open_read_only) shows may be a state that never was.
pub fn state_wal_is_torn(path: &Path) -> Result<bool, StorageError> {
    Ok(open::torn_wals(path)?.iter().any(|torn| !torn.is_end))
}
