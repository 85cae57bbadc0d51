//! A disk for simulations: state databases in memory that forget what was not synced when the simulated
//! machine dies.
//!
//! No interface: it changes with what the simulation needs. Everything belongs to one thread, on which
//! [`enter`] was called; on all others databases are RocksDB's. A directory that holds a database has a file
//! with its number, so that directories can be renamed and removed as those of RocksDB are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::{self, Schema};
use crate::error::StorageError;
use crate::meta::{KeyValue, Table};

/// The number of the database in this directory.
const NUMBER_FILE: &str = "NUMBER";
/// All records of a checkpoint that nobody has opened yet.
const IMAGE_FILE: &str = "IMAGE";
const IMAGE: Schema = Schema { id: 99, version: 1, name: "simulated checkpoint" };

type Records = BTreeMap<(Table, Vec<u8>), Vec<u8>>;
type Write = Vec<(Table, Vec<u8>, Option<Vec<u8>>)>;

thread_local! {
    static DISKS: RefCell<Option<BTreeMap<u64, MemoryDb>>> = const { RefCell::new(None) };
}

/// While it lives, the databases of its thread are in memory.
#[derive(Debug)]
pub struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        DISKS.with_borrow_mut(|disks| *disks = None);
    }
}

/// From now on databases that this thread opens are in memory.
#[must_use]
pub fn enter() -> Entered {
    DISKS.with_borrow_mut(|disks| *disks = Some(BTreeMap::new()));
    Entered(())
}

/// Whether this thread simulates.
#[must_use]
pub fn is_on() -> bool {
    DISKS.with_borrow(Option::is_some)
}

/// The machine of the database in `directory` has died. `kept` is told how many writes were not synced, and
/// answers how many of them, the oldest first, reached the disk all the same.
pub fn lose_power(directory: &Path, kept: impl FnOnce(usize) -> usize) {
    if let Some(db) = number_in(directory).and_then(find) {
        db.lose_power(kept);
    }
}

/// A database in memory. Clones are the same database.
#[derive(Clone)]
pub struct MemoryDb(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    /// What a reader sees.
    live: Records,
    /// What a power loss leaves.
    durable: Records,
    /// What lies between them, the oldest first.
    unsynced: Vec<Write>,
}

impl MemoryDb {
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        std::fs::create_dir_all(path).map_err(StorageError::io("create directory", path))?;
        if let Some(number) = number_in(path) {
            return find(number).ok_or_else(|| StorageError::Corrupt {
                path: path.to_owned(),
                reason: format!("the simulated database {number} is gone"),
            });
        }
        let mut contents = Contents::default();
        let image = path.join(IMAGE_FILE);
        if image.exists() {
            let bytes = std::fs::read(&image).map_err(StorageError::io("read", &image))?;
            contents.durable = decode_image(&bytes)?;
            contents.live = contents.durable.clone();
            std::fs::remove_file(&image).map_err(StorageError::io("remove", &image))?;
        }
        let db = Self(Arc::new(Mutex::new(contents)));
        let number = DISKS.with_borrow_mut(|disks| {
            let disks = disks.get_or_insert_default();
            let number = disks.len() as u64;
            disks.insert(number, db.clone());
            number
        });
        let file = path.join(NUMBER_FILE);
        std::fs::write(&file, number.to_string()).map_err(StorageError::io("write", &file))?;
        Ok(db)
    }

    pub(crate) fn write(&self, write: Write) {
        let mut contents = self.lock();
        contents.live.take_in(&write);
        contents.unsynced.push(write);
    }

    pub(crate) fn sync(&self) {
        let mut contents = self.lock();
        for write in std::mem::take(&mut contents.unsynced) {
            contents.durable.take_in(&write);
        }
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().live.get(&(table, key.to_vec())).cloned()
    }

    pub(crate) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<KeyValue> {
        let start = after.filter(|after| *after >= prefix).unwrap_or(prefix).to_vec();
        self.lock()
            .live
            .range((table, start)..)
            .take_while(|((at, key), _)| *at == table && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn checkpoint(&self, to: &Path) -> Result<(), StorageError> {
        self.sync();
        let bytes = encode_image(&self.lock().durable)?;
        std::fs::create_dir_all(to).map_err(StorageError::io("create directory", to))?;
        let file = to.join(IMAGE_FILE);
        std::fs::write(&file, bytes).map_err(StorageError::io("write", &file))
    }

    fn lose_power(&self, kept: impl FnOnce(usize) -> usize) {
        let mut contents = self.lock();
        let unsynced = std::mem::take(&mut contents.unsynced);
        let kept = kept(unsynced.len());
        for write in unsynced.into_iter().take(kept) {
            contents.durable.take_in(&write);
        }
        contents.live = contents.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait TakeIn {
    fn take_in(&mut self, write: &Write);
}

impl TakeIn for Records {
    fn take_in(&mut self, write: &Write) {
        for (table, key, value) in write {
            match value {
                Some(value) => self.insert((*table, key.clone()), value.clone()),
                None => self.remove(&(*table, key.clone())),
            };
        }
    }
}

fn number_in(directory: &Path) -> Option<u64> {
    std::fs::read_to_string(directory.join(NUMBER_FILE)).ok()?.parse().ok()
}

fn find(number: u64) -> Option<MemoryDb> {
    DISKS.with_borrow(|disks| disks.as_ref()?.get(&number).cloned())
}

fn encode_image(records: &Records) -> Result<Vec<u8>, StorageError> {
    let flat: Vec<(&str, &Vec<u8>, &Vec<u8>)> =
        records.iter().map(|((table, key), value)| (table.name(), key, value)).collect();
    Ok(codec::encode(IMAGE, &flat)?)
}

fn decode_image(bytes: &[u8]) -> Result<Records, StorageError> {
    let flat: Vec<(String, Vec<u8>, Vec<u8>)> = codec::decode(IMAGE, bytes)?;
    let mut records = Records::new();
    for (name, key, value) in flat {
        if let Some(table) = Table::ALL.into_iter().find(|table| table.name() == name) {
            records.insert((table, key), value);
        }
    }
    Ok(records)
}
