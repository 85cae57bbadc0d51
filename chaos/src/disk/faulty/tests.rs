//! The disk as a process sees it, before and after a loss of power. Needs root and `/dev/fuse`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    fs::{File, OpenOptions, create_dir, hard_link, read, read_dir, remove_file, rename, write},
    io::{ErrorKind, Write as _},
    os::unix::fs::FileExt as _,
};

use rand::SeedableRng as _;
use rustix::fs::{FallocateFlags, fallocate};

use super::*;
use crate::scratch::Scratch;

const FORGET: PowerLoss = PowerLoss { data: DataLoss::Forgotten, names: NameLoss::Forgotten };

fn disk() -> (FaultyDisk, PathBuf, Scratch) {
    let scratch = Scratch::new().unwrap();
    let top = scratch.path().join("data");
    (FaultyDisk::mount(&top).unwrap(), top, scratch)
}

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn lose(disk: &mut FaultyDisk, loss: PowerLoss) -> Lost {
    disk.cut();
    disk.lose_power(loss, &mut StdRng::seed_from_u64(1)).unwrap()
}

#[test]
fn a_file_survives_if_it_and_its_directory_were_synced() {
    let (mut disk, top, _scratch) = disk();
    for name in ["whole", "no-name", "no-bytes"] {
        write(top.join(name), name).unwrap();
    }
    sync(&top.join("no-name"));
    sync(&top.join("whole"));
    remove_file(top.join("no-name")).unwrap();
    sync(&top);
    write(top.join("no-name"), "again").unwrap();
    sync(&top.join("no-name"));
    assert_eq!(read_dir(&top).unwrap().count(), 3);
    let lost = lose(&mut disk, FORGET);
    assert_eq!(read(top.join("whole")).unwrap(), b"whole");
    assert_eq!(read(top.join("no-bytes")).unwrap(), b"");
    assert!(!top.join("no-name").exists());
    assert_eq!((lost.files, lost.names), (1, 1));
}

#[test]
fn a_rename_without_a_sync_of_the_directory_is_lost_or_kept_as_wanted() {
    for (names, found) in [(NameLoss::Forgotten, "old"), (NameLoss::Kept, "new")] {
        let (mut disk, top, _scratch) = disk();
        write(top.join("file"), "old").unwrap();
        write(top.join("file.tmp"), "new").unwrap();
        sync(&top.join("file"));
        sync(&top.join("file.tmp"));
        sync(&top);
        rename(top.join("file.tmp"), top.join("file")).unwrap();
        lose(&mut disk, PowerLoss { names, ..FORGET });
        assert_eq!(read(top.join("file")).unwrap(), found.as_bytes());
        assert_eq!(top.join("file.tmp").exists(), found == "old");
    }
}

#[test]
fn an_open_file_goes_on_after_its_name_and_cached_pages_are_not_believed() {
    let (mut disk, top, _scratch) = disk();
    let mut file = File::create_new(top.join("file")).unwrap();
    file.write_all(&[1; 10_000]).unwrap();
    file.sync_data().unwrap();
    sync(&top);
    file.write_at(&[2; 10_000], 5_000).unwrap();
    assert_eq!(read(top.join("file")).unwrap()[5_000..], [2; 10_000]);
    drop(file);
    lose(&mut disk, FORGET);
    assert_eq!(read(top.join("file")).unwrap(), [1; 10_000]);

    let file = File::options().read(true).write(true).open(top.join("file")).unwrap();
    remove_file(top.join("file")).unwrap();
    sync(&top);
    file.write_at(b"x", 0).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, *b"x");
    drop(file);
}

#[test]
fn links_directories_locks_and_space_are_as_anywhere() {
    let (_disk, top, _scratch) = disk();
    write(top.join("one"), "bytes").unwrap();
    hard_link(top.join("one"), top.join("two")).unwrap();
    assert_eq!(
        hard_link(top.join("one"), top.join("two")).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    remove_file(top.join("one")).unwrap();
    assert_eq!(read(top.join("two")).unwrap(), b"bytes");
    create_dir(top.join("directory")).unwrap();
    rename(top.join("two"), top.join("directory/three")).unwrap();
    let refused = fs::remove_dir(top.join("directory")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DirectoryNotEmpty);
    rename(top.join("directory"), top.join("moved")).unwrap();
    assert_eq!(read(top.join("moved/three")).unwrap(), b"bytes");

    let lock = File::create(top.join("lock")).unwrap();
    lock.try_lock().unwrap();
    assert!(File::open(top.join("lock")).unwrap().try_lock().is_err());
    fallocate(&lock, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(lock.metadata().unwrap().len(), 0);
    fallocate(&lock, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(lock.metadata().unwrap().len(), 1 << 20);
    let mut appended = OpenOptions::new().append(true).open(top.join("moved/three")).unwrap();
    appended.write_all(b" and more").unwrap();
    assert_eq!(read(top.join("moved/three")).unwrap(), b"bytes and more");
    fs::remove_dir_all(top.join("moved")).unwrap();
    assert_eq!(read_dir(&top).unwrap().count(), 1);
}

#[test]
fn a_fault_comes_as_the_error_that_it_is_and_goes() {
    let (disk, top, _scratch) = disk();
    create_dir(top.join("log")).unwrap();
    write(top.join("log/file"), "bytes").unwrap();
    disk.inject(DiskFault::always(&[Call::Write, Call::Create], "log", Effect::NoSpace));
    let full = write(top.join("log/other"), "x").unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let full = OpenOptions::new().append(true).open(top.join("log/file")).unwrap().write_all(b"x");
    assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
    write(top.join("elsewhere"), "x").unwrap();
    assert_eq!(disk.repair(), 2);
    write(top.join("log/other"), "x").unwrap();

    disk.inject(DiskFault::once(&[Call::Sync], "", Effect::Error, 2));
    let file = File::open(top.join("elsewhere")).unwrap();
    file.sync_all().unwrap();
    assert!(file.sync_all().is_err());
    file.sync_all().unwrap();
    disk.inject(DiskFault::always(&[Call::Read], "elsewhere", Effect::Error));
    assert!(read(top.join("elsewhere")).is_err());
    disk.repair();

    disk.inject(DiskFault::always(&[Call::Write], "", Effect::Short));
    let mut short = File::create(top.join("short")).unwrap();
    assert_eq!(short.write(&[1; 100]).unwrap(), 50);
    disk.repair();

    disk.cut();
    assert!(file.sync_all().is_err());
}

#[test]
fn an_empty_disk_takes_the_place_of_a_used_one() {
    let (mut disk, top, _scratch) = disk();
    write(top.join("file"), "bytes").unwrap();
    sync(&top);
    disk.replace().unwrap();
    assert_eq!(read_dir(&top).unwrap().count(), 0);
    write(top.join("file"), "other").unwrap();
    drop(disk);
    assert_eq!(read_dir(&top).unwrap().count(), 0, "nothing is left mounted");
}
