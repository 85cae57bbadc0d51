use std::fs;
use std::path::{Path, PathBuf};

use tercet_storage::{
    KvRead as _, LogColumn, MetaBatch, StateDb, StorageError, Table, checkpoint, open_log_db,
    open_state_db, state_wal_is_torn, sync_wal,
};

const ENTRIES: u32 = 50;

/// Writes entries as Raft does, and returns the WAL they are in.
fn write_log(path: &Path) -> PathBuf {
    let db = open_log_db(path).unwrap();
    let column = db.cf_handle(LogColumn::Entries.name()).unwrap();
    for index in 0..ENTRIES {
        db.put_cf(column, index.to_be_bytes(), [7; 100]).unwrap();
    }
    sync_wal(&db);
    drop(db);
    largest_wal(path)
}

fn largest_wal(path: &Path) -> PathBuf {
    let paths = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let wals = paths.filter(|path| path.extension().is_some_and(|text| text == "log"));
    wals.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn count(path: &Path) -> u32 {
    let db = open_log_db(path).unwrap();
    let column = db.cf_handle(LogColumn::Entries.name()).unwrap();
    let found =
        (0..ENTRIES).take_while(|index| db.get_cf(column, index.to_be_bytes()).unwrap().is_some());
    u32::try_from(found.count()).unwrap()
}

#[test]
fn log_survives_reopening() {
    let root = tempfile::tempdir().unwrap();
    write_log(root.path());
    assert_eq!(count(root.path()), ENTRIES);
    assert_eq!(count(root.path()), ENTRIES);
}

#[test]
fn torn_end_of_the_log_opens_with_the_prefix() {
    let root = tempfile::tempdir().unwrap();
    let wal = write_log(root.path());
    let bytes = fs::read(&wal).unwrap();
    for torn in [1, 3, 90] {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(root.path(), copy.path());
        fs::write(copy.path().join(wal.file_name().unwrap()), &bytes[..bytes.len() - torn])
            .unwrap();
        assert_eq!(count(copy.path()), ENTRIES - 1, "{torn} bytes torn off");
    }
}

#[test]
fn damage_in_the_middle_of_the_log_refuses_to_open() {
    let root = tempfile::tempdir().unwrap();
    let wal = write_log(root.path());
    let bytes = fs::read(&wal).unwrap();
    let middle = bytes.len() / 2;
    // Offsets over more than one record, so that checksums, lengths, types and payloads are all hit.
    for at in (middle..middle + 150).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        refuse(root.path(), &wal, &flipped);
    }
    let mut zeroed = bytes.clone();
    zeroed[middle..middle + 512].fill(0);
    refuse(root.path(), &wal, &zeroed);
    let mut cut_out = bytes;
    cut_out.drain(middle..middle + 60);
    refuse(root.path(), &wal, &cut_out);
}

fn refuse(root: &Path, wal: &Path, damaged: &[u8]) {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(root, copy.path());
    fs::write(copy.path().join(wal.file_name().unwrap()), damaged).unwrap();
    let error = open_log_db(copy.path()).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("join as a new member"));
    // Refusing changed nothing: it is refused again.
    assert!(open_log_db(copy.path()).is_err());
}

#[test]
fn second_open_of_one_database_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let _db = open_log_db(root.path()).unwrap();
    let error = open_log_db(root.path()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
}

#[test]
fn damaged_state_opens_with_the_prefix_wherever_the_damage_is() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    for n in 0..50_u8 {
        let mut ops = tercet_storage::MetaBatchOps::default();
        ops.put(Table::System, b"last_applied".to_vec(), vec![n]);
        ops.put(Table::Tags, vec![n], vec![n; 100]);
        db.write(ops).unwrap();
    }
    db.flush_wal();
    drop(db);
    let wal = largest_wal(root.path());
    let mut bytes = fs::read(&wal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 300].fill(0);
    fs::write(&wal, bytes).unwrap();
    let db = StateDb::open(root.path()).unwrap();
    let applied = db.get(Table::System, b"last_applied").unwrap().unwrap()[0];
    assert!((20..30).contains(&applied), "{applied}");
    let tags = db.scan(Table::Tags, b"", None, 100).unwrap();
    assert_eq!(tags.len(), usize::from(applied) + 1);
}

/// A loss of power takes the end of one file and leaves the next one, which was written back earlier.
#[test]
fn state_does_not_go_on_behind_a_gap_between_two_files() {
    const BATCHES: u8 = 40;
    let root = tempfile::tempdir().unwrap();
    let [live, before, gap] = ["live", "before", "gap"].map(|name| root.path().join(name));
    let write = |db: &StateDb, numbers: std::ops::Range<u8>| {
        for n in numbers {
            let mut ops = tercet_storage::MetaBatchOps::default();
            ops.put(Table::System, b"last_applied".to_vec(), vec![n]);
            ops.put(Table::Tags, vec![n], vec![n; 100]);
            db.write(ops).unwrap();
        }
    };
    let db = StateDb::open(&live).unwrap();
    copy_dir(&live, &before);
    write(&db, 0..BATCHES / 2);
    let older = largest_wal(&live);
    copy_dir(&live, &gap);
    // Turns the file over: a checkpoint flushes all.
    db.checkpoint(&root.path().join("checkpoint")).unwrap();
    write(&db, BATCHES / 2..BATCHES);
    let newer = largest_wal(&live);
    assert_ne!(older, newer);
    let newer = (newer.file_name().unwrap().to_owned(), fs::read(&newer).unwrap());
    let older = (
        older.file_name().unwrap().to_owned(),
        fs::read(gap.join(older.file_name().unwrap())).unwrap(),
    );
    drop(db);

    let opened = |older_bytes: &[u8]| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&before, copy.path());
        fs::write(copy.path().join(&older.0), older_bytes).unwrap();
        fs::write(copy.path().join(&newer.0), &newer.1).unwrap();
        let torn = older_bytes.len() < older.1.len();
        assert_eq!(state_wal_is_torn(copy.path()).unwrap(), torn);
        let db = StateDb::open(copy.path()).unwrap();
        assert!(!state_wal_is_torn(copy.path()).unwrap(), "it was cut");
        let applied = db.get(Table::System, b"last_applied").unwrap().map(|value| value[0]);
        let tags = db.scan(Table::Tags, b"", None, 100).unwrap().len();
        assert_eq!(
            tags,
            applied.map_or(0, |applied| usize::from(applied) + 1),
            "a state that never was"
        );
        applied
    };
    assert_eq!(opened(&older.1), Some(BATCHES - 1), "both files are whole");
    // At the end of a record there is no damage that a checksum could tell. The first records may be RocksDB's own.
    let mut ends = vec![0];
    while let Some(length) = older.1.get(ends[ends.len() - 1]..).and_then(|rest| rest.get(4..6)) {
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        ends.push(ends[ends.len() - 1] + 7 + length);
    }
    assert_eq!(ends.pop(), Some(older.1.len()));
    let batches = usize::from(BATCHES) / 2;
    for (end, kept) in ends.iter().rev().zip((0..batches).rev()) {
        let expected = kept.checked_sub(1).map(|applied| u8::try_from(applied).unwrap());
        assert_eq!(opened(&older.1[..*end]), expected, "the older file with {kept} batches");
        assert_eq!(opened(&older.1[..end + 9]), expected, "and a part of the next");
    }
}

#[test]
fn checkpoint_is_a_whole_database_of_its_moment() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(&root.path().join("state")).unwrap();
    let mut ops = tercet_storage::MetaBatchOps::default();
    ops.put(Table::Settings, b"k".to_vec(), b"before".to_vec());
    db.write(ops).unwrap();
    let to = root.path().join("snapshots/1");
    db.checkpoint(&to).unwrap();
    let mut ops = tercet_storage::MetaBatchOps::default();
    ops.put(Table::Settings, b"k".to_vec(), b"after".to_vec());
    db.write(ops).unwrap();
    let copy = StateDb::open(&to).unwrap();
    assert_eq!(copy.get(Table::Settings, b"k").unwrap().unwrap(), b"before");
    assert!(db.checkpoint(&to).is_err());
    // The failed attempt did not touch the first.
    assert_eq!(copy.get(Table::Settings, b"k").unwrap().unwrap(), b"before");
    let log = open_log_db(&root.path().join("log")).unwrap();
    checkpoint(&log, &root.path().join("log-copy")).unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A disk or a snapshot of a version that did not know the table yet.
#[test]
fn a_state_that_lacks_a_newer_table_gets_it() {
    let root = tempfile::tempdir().unwrap();
    let (key, value) = (b"key".to_vec(), b"value".to_vec());
    let db = StateDb::open(root.path()).unwrap();
    let mut batch = MetaBatch::new(&db);
    batch.put(Table::Repositories, key.clone(), value.clone());
    batch.commit().unwrap();
    drop(db);
    open_state_db(root.path()).unwrap().drop_cf(Table::AwaitedBlobs.name()).unwrap();
    for _ in 0..2 {
        let db = StateDb::open(root.path()).unwrap();
        assert_eq!(db.get(Table::Repositories, &key).unwrap(), Some(value.clone()));
        let mut batch = MetaBatch::new(&db);
        batch.put(Table::AwaitedBlobs, key.clone(), value.clone());
        batch.commit().unwrap();
        db.flush().unwrap();
        assert_eq!(db.get(Table::AwaitedBlobs, &key).unwrap(), Some(value.clone()));
    }
}
