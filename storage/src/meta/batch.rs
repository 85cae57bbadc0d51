//! Writes that are collected, visible to reads through the batch, and applied all at once.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use super::read::Meta;
use super::state_db::StateDb;
use super::table::{KeyValue, KvRead, Table};
use crate::error::StorageError;

/// The writes of a batch: a value to put, or `None` to delete.
#[derive(Debug, Default)]
pub struct MetaBatchOps {
    ops: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl MetaBatchOps {
    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.ops.insert((table, key), Some(value));
    }

    /// Removes `key`. Absent is fine.
    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.ops.insert((table, key), None);
    }

    /// How many keys are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (Table, Vec<u8>, Option<Vec<u8>>)> {
        self.ops.into_iter().map(|((table, key), value)| (table, key, value))
    }

    /// The writes to keys that [`KvRead::scan`] would visit, in order.
    fn range<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((table, after.to_vec())),
            _ => Bound::Included((table, prefix.to_vec())),
        };
        let range: btree_map::Range<'a, _, _> = self.ops.range((start, Bound::Unbounded));
        range
            .map(|((at, key), value)| (*at, key, value))
            .take_while(move |(at, key, _)| *at == table && key.starts_with(prefix))
            .map(|(_, key, value)| (key, value))
    }
}

/// A batch over a database. Reads through it see its own writes; nobody else does until
/// [`MetaBatch::commit`]. Dropping it forgets them. There is one writer: the state machine.
#[derive(Debug)]
pub struct MetaBatch<'a> {
    db: &'a StateDb,
    ops: MetaBatchOps,
}

impl<'a> MetaBatch<'a> {
    /// An empty batch over `db`.
    #[must_use]
    pub fn new(db: &'a StateDb) -> Self {
        Self { db, ops: MetaBatchOps::default() }
    }

    /// Typed reads that see this batch's writes.
    #[must_use]
    pub fn meta(&self) -> Meta<'_, Self> {
        Meta(self)
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.put(table, key.into(), value.into());
    }

    /// Removes `key`. Absent is fine.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.ops.delete(table, key.into());
    }

    /// The writes so far, without applying them.
    #[must_use]
    pub fn into_ops(self) -> MetaBatchOps {
        self.ops
    }

    /// Applies all writes or none, in one RocksDB write; see [`StateDb::write`].
    pub fn commit(self) -> Result<(), StorageError> {
        self.db.write(self.ops)
    }
}

impl KvRead for MetaBatch<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        // The map's key type owns its bytes, so a lookup needs a copy; keys are short.
        match self.ops.ops.get(&(table, key.to_vec())) {
            Some(written) => Ok(written.clone()),
            None => self.db.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StorageError> {
        let mut written = self.ops.range(table, prefix, after).peekable();
        if written.peek().is_none() {
            return self.db.scan(table, prefix, after, limit);
        }
        // Each deletion can hide one stored pair, so this many stored pairs are enough.
        let deletions =
            self.ops.range(table, prefix, after).filter(|(_, value)| value.is_none()).count();
        let stored = self.db.scan(table, prefix, after, limit.saturating_add(deletions))?;
        let mut stored = stored.into_iter().peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let take_written = match (written.peek(), stored.peek()) {
                (None, None) => break,
                (Some((key, _)), Some((stored_key, _))) => *key <= stored_key,
                (written, _) => written.is_some(),
            };
            if !take_written {
                found.extend(stored.next());
            } else if let Some((key, value)) = written.next() {
                stored.next_if(|(stored_key, _)| stored_key == key);
                if let Some(value) = value {
                    found.push((key.clone(), value.clone()));
                }
            }
        }
        Ok(found)
    }
}
