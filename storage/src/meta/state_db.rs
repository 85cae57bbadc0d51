//! The state database.

use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamily, DB, Direction, FlushOptions, IteratorMode, ReadOptions, WriteBatch};

use super::batch::MetaBatchOps;
use super::derived;
use super::table::{KeyValue, KvRead, Table};
use crate::error::StorageError;
use crate::kv;

/// The open state database of one replica.
pub struct StateDb {
    engine: Engine,
    path: PathBuf,
}

/// What holds the tables.
enum Engine {
    RocksDb(DB),
    /// On a simulated disk.
    #[cfg(feature = "simulation")]
    Memory(crate::simulation::MemoryDb),
}

impl StateDb {
    /// Opens or creates the database in the directory `path`; see [`crate::open_state_db`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let db = Self { engine: Engine::open(path)?, path: path.to_owned() };
        derived::make(&db)?;
        Ok(db)
    }

    /// Opens the database without changing a byte of it, for a look at a replica that does not run.
    pub fn open_read_only(path: &Path) -> Result<Self, StorageError> {
        let columns = Table::ALL.map(Table::name);
        let engine = Engine::RocksDb(kv::open_read_only(path, &columns)?);
        Ok(Self { engine, path: path.to_owned() })
    }

    /// Whether the database has that table: one of an older version may lack some.
    pub(super) fn has_table(&self, table: Table) -> bool {
        self.column(table).is_ok()
    }

    /// Makes the tables that are made from others anew.
    pub fn rebuild_derived(&self) -> Result<(), StorageError> {
        derived::remake(self)
    }

    /// The database's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies all of `ops` or none, in one RocksDB write. Not durable until [`Self::flush_wal`] or
    /// [`Self::checkpoint`]: a crash of the machine may undo the last writes, in order, newest first.
    pub fn write(&self, ops: MetaBatchOps) -> Result<(), StorageError> {
        #[cfg(feature = "simulation")]
        if let Engine::Memory(memory) = &self.engine {
            memory.write(ops.into_iter().collect());
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for (table, key, value) in ops.into_iter() {
            let column = self.column(table)?;
            match value {
                Some(value) => batch.put_cf(column, key, value),
                None => batch.delete_cf(column, key),
            }
        }
        self.raw()?.write(batch).map_err(self.error("write"))
    }

    /// Makes every write so far durable. A failure ends the process.
    ///
    /// The Raft log may be purged only up to what was applied before a call of this or of
    /// [`Self::checkpoint`].
    pub fn flush_wal(&self) {
        match &self.engine {
            Engine::RocksDb(db) => kv::sync_wal(db),
            #[cfg(feature = "simulation")]
            Engine::Memory(memory) => memory.sync(),
        }
    }

    /// Writes all memtables to durable tables, so that the next open has nothing to replay.
    pub fn flush(&self) -> Result<(), StorageError> {
        #[cfg(feature = "simulation")]
        if let Engine::Memory(memory) = &self.engine {
            memory.sync();
            return Ok(());
        }
        let columns =
            Table::ALL.iter().map(|table| self.column(*table)).collect::<Result<Vec<_>, _>>()?;
        self.raw()?.flush_cfs_opt(&columns, &FlushOptions::default()).map_err(self.error("flush"))
    }

    /// Writes a durable copy into the directory `to`, which must not exist; see [`crate::checkpoint`].
    pub fn checkpoint(&self, to: &Path) -> Result<(), StorageError> {
        match &self.engine {
            Engine::RocksDb(db) => kv::checkpoint(db, to),
            #[cfg(feature = "simulation")]
            Engine::Memory(memory) => memory.checkpoint(to),
        }
    }

    /// RocksDB's own handle; a simulated disk has none.
    pub(super) fn raw(&self) -> Result<&DB, StorageError> {
        match &self.engine {
            Engine::RocksDb(db) => Ok(db),
            #[cfg(feature = "simulation")]
            Engine::Memory(_) => Err(StorageError::Corrupt {
                path: self.path.clone(),
                reason: "a simulated disk is no RocksDB".to_owned(),
            }),
        }
    }

    pub(super) fn column(&self, table: Table) -> Result<&ColumnFamily, StorageError> {
        self.raw()?.cf_handle(table.name()).ok_or_else(|| StorageError::Corrupt {
            path: self.path.clone(),
            reason: format!("table {} is missing", table.name()),
        })
    }

    pub(super) fn error(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(rocksdb::Error) -> StorageError {
        let path = self.path.clone();
        move |source| match source.kind() {
            rocksdb::ErrorKind::Corruption => {
                StorageError::Corrupt { path, reason: source.to_string() }
            }
            _ => StorageError::Database { operation, path, source },
        }
    }
}

impl Engine {
    fn open(path: &Path) -> Result<Self, StorageError> {
        #[cfg(feature = "simulation")]
        if crate::simulation::is_on() {
            return crate::simulation::MemoryDb::open(path).map(Self::Memory);
        }
        kv::open_state_db(path).map(Self::RocksDb)
    }
}

impl KvRead for StateDb {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        #[cfg(feature = "simulation")]
        if let Engine::Memory(memory) = &self.engine {
            return Ok(memory.get(table, key));
        }
        self.raw()?.get_cf(self.column(table)?, key).map_err(self.error("read"))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StorageError> {
        #[cfg(feature = "simulation")]
        if let Engine::Memory(memory) = &self.engine {
            return Ok(memory.scan(table, prefix, after, limit));
        }
        let mut read = ReadOptions::default();
        if let Some(end) = successor_of_prefix(prefix) {
            read.set_iterate_upper_bound(end);
        }
        let start = after.filter(|after| *after >= prefix).unwrap_or(prefix);
        let pairs = self.raw()?.iterator_cf_opt(
            self.column(table)?,
            read,
            IteratorMode::From(start, Direction::Forward),
        );
        let mut found = Vec::new();
        for pair in pairs {
            if found.len() >= limit {
                break;
            }
            let (key, value) = pair.map_err(self.error("scan"))?;
            if after.is_none_or(|after| &*key > after) {
                found.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(found)
    }
}

impl std::fmt::Debug for StateDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateDb").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The smallest key greater than every key that starts with `prefix`; `None` if there is none.
fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut successor = prefix.get(..=last)?.to_vec();
    if let Some(byte) = successor.last_mut() {
        *byte += 1;
    }
    Some(successor)
}

#[cfg(test)]
mod tests {
    use super::successor_of_prefix;

    #[test]
    fn successor_skips_bytes_that_cannot_grow() {
        assert_eq!(successor_of_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor_of_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor_of_prefix(b"\xff"), None);
        assert_eq!(successor_of_prefix(b""), None);
    }
}
