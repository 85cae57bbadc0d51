//! A digest over everything that is replicated, to compare replicas with each other.
//!
//! In it: every table but [`Table::System`], key by key, with the values as they lie there, and of `System` what the
//! Raft layer says that the log alone decides. The derived tables are in it too: they are kept in step by the same
//! entries, so that a difference in them is a defect like any other.
//!
//! Not in it: the position in the log, which is told beside the digest; which snapshot a database came from and which
//! derived tables were made when it was opened, which each replica knows for itself; the log, the vote, the blobs'
//! bytes.

use rocksdb::{Direction, IteratorMode, ReadOptions};
use serde::{Deserialize, Serialize};

use super::state_db::StateDb;
use super::table::Table;
use crate::error::StorageError;
use crate::{Algorithm, Digest, DigestHasher};

/// Between two looks at whether somebody needs the database for himself: records, and bytes of large ones.
const RECORDS_BETWEEN_LOOKS: u64 = 256;
const BYTES_BETWEEN_LOOKS: u64 = 1 << 20;
/// Begins what is hashed; a new meaning of the bytes gets a new one.
const HEADING: &[u8] = b"tercet state 1";

/// Which of the Raft layer's records count.
#[derive(Clone, Copy, Debug)]
pub struct SystemKeys<'a> {
    /// In the digest.
    pub hashed: &'a [&'a [u8]],
    /// Told beside it, as of the same moment.
    pub told: &'a [u8],
}

/// One table's part of the digest: where two replicas differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableHash {
    /// The table's name.
    pub table: String,
    /// How many records it has.
    pub records: u64,
    /// Over its keys and values.
    pub digest: Digest,
}

/// The digest of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedState {
    /// Over all tables.
    pub digest: Digest,
    /// Table by table.
    pub tables: Vec<TableHash>,
    /// The record that was asked for beside it.
    pub told: Option<Vec<u8>>,
}

impl StateDb {
    /// Reads all of the database as it is now, whatever is written meanwhile, a record at a time. `None` if
    /// `go_on` said no before the end; it is asked every few milliseconds.
    ///
    /// # Errors
    /// When the database cannot be read, or lacks a table because an older version wrote it.
    pub fn state_hash(
        &self,
        system: SystemKeys<'_>,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<HashedState>, StorageError> {
        let snapshot = self.raw()?.snapshot();
        let get = |key: &[u8]| {
            snapshot.get_cf(self.column(Table::System)?, key).map_err(self.error("read"))
        };
        let mut all = DigestHasher::new(Algorithm::Sha256);
        all.update(HEADING);
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let mut part = TableHasher::new(table);
            if table == Table::System {
                for key in system.hashed {
                    if let Some(value) = get(key)? {
                        part.record(key, &value);
                    }
                }
            } else {
                let mut read = ReadOptions::default();
                // All of it once: it must not push out what requests read again and again.
                read.fill_cache(false);
                let start = IteratorMode::From(b"", Direction::Forward);
                for pair in snapshot.iterator_cf_opt(self.column(table)?, read, start) {
                    let (key, value) = pair.map_err(self.error("scan"))?;
                    part.record(&key, &value);
                    if part.look_is_due() && !go_on() {
                        return Ok(None);
                    }
                }
            }
            let hashed = part.finish();
            all.update(hashed.table.as_bytes());
            all.update(&hashed.records.to_le_bytes());
            all.update(hashed.digest.as_bytes());
            tables.push(hashed);
        }
        let told = get(system.told)?;
        Ok(Some(HashedState { digest: all.finish(), tables, told }))
    }
}

struct TableHasher {
    table: Table,
    records: u64,
    hasher: DigestHasher,
    /// Since the last look.
    records_since: u64,
    bytes_since: u64,
}

impl TableHasher {
    fn new(table: Table) -> Self {
        let hasher = DigestHasher::new(Algorithm::Sha256);
        Self { table, records: 0, hasher, records_since: 0, bytes_since: 0 }
    }

    /// Whether it is time for a look; then the next one is as far away again.
    fn look_is_due(&mut self) -> bool {
        let due =
            self.records_since >= RECORDS_BETWEEN_LOOKS || self.bytes_since >= BYTES_BETWEEN_LOOKS;
        if due {
            (self.records_since, self.bytes_since) = (0, 0);
        }
        due
    }

    /// With their lengths: no two lists of records are the same bytes.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        for bytes in [key, value] {
            self.hasher.update(&(bytes.len() as u64).to_le_bytes());
            self.hasher.update(bytes);
            self.bytes_since += bytes.len() as u64;
        }
        self.records += 1;
        self.records_since += 1;
    }

    fn finish(self) -> TableHash {
        let table = self.table.name().to_owned();
        TableHash { table, records: self.records, digest: self.hasher.finish() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::MetaBatch;

    const SYSTEM: SystemKeys<'_> = SystemKeys { hashed: &[b"members"], told: b"position" };

    fn hash(db: &StateDb) -> HashedState {
        db.state_hash(SYSTEM, || true).unwrap().unwrap()
    }

    fn put(db: &StateDb, table: Table, key: &[u8], value: &[u8]) {
        let mut batch = MetaBatch::new(db);
        batch.put(table, key, value);
        batch.commit().unwrap();
    }

    /// A database whose records came in this order.
    fn filled(dir: &std::path::Path, order: impl Iterator<Item = u32>) -> StateDb {
        let db = StateDb::open(dir).unwrap();
        for number in order {
            for table in Table::ALL {
                if table != Table::System {
                    put(&db, table, &number.to_be_bytes(), &number.to_le_bytes());
                }
            }
        }
        put(&db, Table::System, b"members", b"three");
        put(&db, Table::System, b"position", b"7");
        db
    }

    #[test]
    fn the_same_records_have_the_same_digest_however_they_came() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let one = filled(dirs[0].path(), 0..40);
        let two = filled(dirs[1].path(), (0..40).rev());
        two.flush().unwrap();
        assert_eq!(hash(&one), hash(&two));
        assert_eq!(hash(&one).told, Some(b"7".to_vec()));
        assert_eq!(hash(&one).tables.len(), Table::ALL.len());
        // What belongs to one replica counts for nothing.
        put(&two, Table::System, b"installed_snapshot", b"5");
        assert_eq!(hash(&one), hash(&two));
        put(&two, Table::System, b"position", b"8");
        assert_eq!(hash(&one).digest, hash(&two).digest);
        assert_ne!(hash(&one).told, hash(&two).told);
        // And a look without the right to write sees the same.
        let before = hash(&two);
        drop(two);
        assert_eq!(hash(&StateDb::open_read_only(dirs[1].path()).unwrap()), before);
    }

    #[test]
    fn a_change_of_one_record_in_any_table_changes_it_and_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 0..9);
        let before = hash(&db);
        for table in Table::ALL {
            let (key, old) = match table {
                Table::System => (b"members".to_vec(), b"three".to_vec()),
                _ => (3_u32.to_be_bytes().to_vec(), 3_u32.to_le_bytes().to_vec()),
            };
            let harms: [&dyn Fn(&mut MetaBatch<'_>); 3] = [
                &|batch| batch.put(table, &*key, b"else"),
                &|batch| batch.delete(table, &*key),
                // The bytes of both together stay the same.
                &|batch| {
                    let whole = [key.clone(), old.clone()].concat();
                    batch.delete(table, &*key);
                    batch.put(table, &whole[..whole.len() - 1], &whole[whole.len() - 1..]);
                },
            ];
            for (number, harm) in harms.iter().enumerate() {
                let mut batch = MetaBatch::new(&db);
                harm(&mut batch);
                batch.commit().unwrap();
                let after = hash(&db);
                assert_ne!(after.digest, before.digest, "{table:?} {number}");
                let differ: Vec<&str> = (after.tables.iter().zip(&before.tables))
                    .filter(|(after, before)| after != before)
                    .map(|(after, _)| after.table.as_str())
                    .collect();
                assert_eq!(differ, [table.name()]);
                let mut batch = MetaBatch::new(&db);
                let whole = [key.clone(), old.clone()].concat();
                if table != Table::System {
                    batch.delete(table, &whole[..whole.len() - 1]);
                }
                batch.put(table, &*key, &*old);
                batch.commit().unwrap();
                assert_eq!(hash(&db), before);
            }
        }
    }

    #[test]
    fn it_is_of_one_moment_and_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 0..300);
        let before = hash(&db);
        let during = db.state_hash(SYSTEM, || {
            put(&db, Table::Tags, b"z", b"later");
            put(&db, Table::System, b"position", b"9");
            true
        });
        assert_eq!(during.unwrap().unwrap(), before);
        assert_ne!(hash(&db), before);
        assert_eq!(db.state_hash(SYSTEM, || false).unwrap(), None);
        // Few records can be large.
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 0..1);
        assert!(db.state_hash(SYSTEM, || false).unwrap().is_some());
        put(&db, Table::Manifests, b"large", &vec![1; 2 << 20]);
        assert_eq!(db.state_hash(SYSTEM, || false).unwrap(), None);
    }
}
