//! What the volume still has for Raft and the metadata, and the file that is given up when it has nothing.
//!
//! RocksDB does not survive a write that meets the end of the volume: it refuses every later one, and a
//! replica that cannot write its log has to end. So nothing is written to it before a look at the volume.
//! Content stops first, at the watermarks of the blob store; then commands that make the metadata grow, at
//! [`Room::Scarce`]; then all of them, at [`Room::Exhausted`]. What is left below that is for votes and for
//! what RocksDB has in memory.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use crate::blob::{DataDir, Space, statvfs};
use crate::error::StorageError;

/// How much room there is for what Raft writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Nothing at all should be written.
    Exhausted,
    /// Only what frees space, or keeps the group together.
    Scarce,
    /// Enough.
    Ample,
}

/// Asks how full the volume of a path is. Tests give their own.
pub type SpaceProbe = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadroomOptions {
    /// Bytes that content leaves free: below half of them the metadata stops growing, below an eighth it
    /// stops changing.
    pub headroom_bytes: u64,
    /// Size of the file that is given up when the volume is exhausted all the same; 0 means none.
    pub reserve_bytes: u64,
}

/// Watches one replica's volume for Raft. Clones share the reserve.
#[derive(Clone)]
pub struct Headroom {
    inner: Arc<Inner>,
}

struct Inner {
    volume: PathBuf,
    reserve: PathBuf,
    marks: Marks,
    reserve_bytes: u64,
    /// Bytes of the reserve that there are; read without the lock.
    held: AtomicU64,
    /// Held while the reserve is made or given up.
    changing: Mutex<()>,
    probe: SpaceProbe,
}

/// Below how many free bytes room is what.
#[derive(Clone, Copy, Debug)]
struct Marks {
    scarce: u64,
    exhausted: u64,
}

impl Headroom {
    /// Looks at the volume of `data`, which must be locked. Makes the reserve if there is room for it, or
    /// gives it up if that is what opening the databases needs.
    ///
    /// # Errors
    /// When a reserve of another size cannot be removed.
    pub fn open(data: &DataDir, options: HeadroomOptions) -> Result<Self, StorageError> {
        Self::open_with(data, options, Arc::new(|path: &Path| statvfs(path)))
    }

    /// As [`Self::open`], with another way to ask how full the volume is.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn open_with(
        data: &DataDir,
        options: HeadroomOptions,
        probe: SpaceProbe,
    ) -> Result<Self, StorageError> {
        let reserve = data.reserve();
        let held = found_reserve(&reserve, options.reserve_bytes)?;
        let inner = Inner {
            volume: data.root().to_owned(),
            reserve,
            marks: Marks::of(options.headroom_bytes),
            reserve_bytes: options.reserve_bytes,
            held: AtomicU64::new(held),
            changing: Mutex::new(()),
            probe,
        };
        let headroom = Self { inner: Arc::new(inner) };
        if headroom.room() == Room::Ample {
            headroom.restore();
        }
        Ok(headroom)
    }

    /// How much room there is now. One system call: it may be made from async code. Gives the reserve up
    /// when nothing else is left.
    #[must_use]
    pub fn room(&self) -> Room {
        let room = self.judge();
        if room > Room::Exhausted || !self.give_up() {
            return room;
        }
        self.judge()
    }

    /// Whether the volume has no room even for a vote.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.space().is_some_and(|space| space.available < VOTE_BYTES)
    }

    /// Bytes of the reserve file; 0 once it was given up.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        self.inner.held.load(Ordering::Acquire)
    }

    /// Makes the reserve again if it was given up and there is room for it and more. Returns whether it
    /// was made. May take as long as writing it.
    pub fn restore(&self) -> bool {
        let Inner { reserve_bytes, marks, held, changing, reserve, .. } = &*self.inner;
        let _changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = marks.scarce.saturating_add(*reserve_bytes);
        let roomy = self
            .space()
            .is_some_and(|space| space.available >= needed && marks.judge(&space) == Room::Ample);
        if *reserve_bytes == 0 || held.load(Ordering::Acquire) > 0 || !roomy {
            return false;
        }
        match make_reserve(reserve, *reserve_bytes) {
            Ok(()) => {
                held.store(*reserve_bytes, Ordering::Release);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the reserve of the data directory cannot be made now");
                fs::remove_file(reserve).ok();
                false
            }
        }
    }

    /// A sentence for whoever is refused: where, how much is left, and what to do.
    #[must_use]
    pub fn describe(&self) -> String {
        let volume = self.inner.volume.display();
        match self.space() {
            Some(space) if space.inodes_total > 0 && inodes(&space) < Room::Ample => {
                let Space { inodes_available, inodes_total, .. } = space;
                format!(
                    "the volume of {volume} has {inodes_available} of {inodes_total} inodes left; remove files there, or delete images"
                )
            }
            Some(space) => format!(
                "the volume of {volume} has {} bytes left; make it larger, remove other files there, or delete images",
                space.available
            ),
            None => format!("the volume of {volume} cannot be asked how full it is"),
        }
    }

    fn judge(&self) -> Room {
        // Who cannot be asked is not full: the write itself will tell.
        self.space().map_or(Room::Ample, |space| self.inner.marks.judge(&space))
    }

    fn space(&self) -> Option<Space> {
        match (self.inner.probe)(&self.inner.volume) {
            Ok(space) => Some(space),
            Err(error) => {
                tracing::debug!(%error, "cannot tell how full the volume is");
                None
            }
        }
    }

    /// Removes the reserve. Returns whether there was one.
    fn give_up(&self) -> bool {
        let Inner { held, changing, reserve, volume, .. } = &*self.inner;
        if held.load(Ordering::Acquire) == 0 {
            return false;
        }
        let _changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = held.swap(0, Ordering::AcqRel);
        if bytes == 0 {
            // Another look gave it up a moment ago.
            return true;
        }
        if let Err(error) = fs::remove_file(reserve) {
            tracing::error!(path = %reserve.display(), %error, "the reserve cannot be given up");
        }
        tracing::error!(
            volume = %volume.display(),
            bytes,
            "the disk is full: the reserve is given up so that this replica can go on voting"
        );
        true
    }
}

impl fmt::Debug for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headroom")
            .field("marks", &self.inner.marks)
            .field("reserve_bytes", &self.reserve_bytes())
            .finish_non_exhaustive()
    }
}

impl Marks {
    fn of(headroom_bytes: u64) -> Self {
        let exhausted = (headroom_bytes / 8).max(EXHAUSTED_BYTES_MIN);
        Self { scarce: (headroom_bytes / 2).max(exhausted * 2), exhausted }
    }

    fn judge(&self, space: &Space) -> Room {
        let bytes = match space.available {
            available if available < self.exhausted => Room::Exhausted,
            available if available < self.scarce => Room::Scarce,
            _ => Room::Ample,
        };
        bytes.min(inodes(space))
    }
}

/// RocksDB makes a handful of files whenever it writes out its memory.
fn inodes(space: &Space) -> Room {
    if space.inodes_total == 0 {
        return Room::Ample;
    }
    let (scarce, exhausted) = (INODES_SCARCE, INODES_EXHAUSTED);
    match space.inodes_available {
        available if available < exhausted.min(space.inodes_total / 40) => Room::Exhausted,
        available if available < scarce.min(space.inodes_total / 20) => Room::Scarce,
        _ => Room::Ample,
    }
}

/// Bytes of the reserve at `path`. One that is not whole, because a crash came between, or not of the
/// wanted size is removed.
fn found_reserve(path: &Path, wanted: u64) -> Result<u64, StorageError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StorageError::io("stat", path)(error)),
    };
    // Holes reserve nothing.
    let allocated = metadata.blocks().saturating_mul(512);
    if wanted > 0 && metadata.len() == wanted && allocated >= wanted {
        return Ok(wanted);
    }
    fs::remove_file(path).map_err(StorageError::io("remove", path))?;
    Ok(0)
}

fn make_reserve(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    if fallocate(&file, FallocateFlags::empty(), 0, bytes).is_ok() {
        return Ok(());
    }
    // A file system that cannot promise space is given real bytes. Anything but zeros, which some of them
    // do not store.
    let chunk = [0xA5_u8; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        file.write_all(chunk.get(..length).unwrap_or_default())?;
        left -= length as u64;
    }
    Ok(())
}

/// The least that is kept for what RocksDB has in memory, whatever the configuration says.
const EXHAUSTED_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// What a vote may need: a block of the log's file and some of the file system's own.
const VOTE_BYTES: u64 = 256 * 1024;
/// Of a volume with few inodes, a part of them counts instead.
const INODES_SCARCE: u64 = 256;
const INODES_EXHAUSTED: u64 = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const OPTIONS: HeadroomOptions =
        HeadroomOptions { headroom_bytes: 64 * MIB, reserve_bytes: 16 * MIB };

    /// A volume of 1000 MiB with a number of free ones, which the reserve file is not part of.
    fn volume(free: &Arc<AtomicU64>) -> SpaceProbe {
        let free = Arc::clone(free);
        Arc::new(move |_: &Path| {
            Ok(Space {
                total: 1000 * MIB,
                available: free.load(Ordering::Relaxed),
                inodes_total: 0,
                inodes_available: 0,
            })
        })
    }

    #[test]
    fn room_shrinks_with_the_space_and_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(500 * MIB));
        let data = DataDir::new(root.path());
        let options = HeadroomOptions { reserve_bytes: 0, ..OPTIONS };
        let headroom = Headroom::open_with(&data, options, volume(&free)).unwrap();
        for (mib, room) in [
            (500, Room::Ample),
            (32, Room::Ample),
            (31, Room::Scarce),
            (8, Room::Scarce),
            (7, Room::Exhausted),
            (0, Room::Exhausted),
            (9, Room::Scarce),
            (64, Room::Ample),
        ] {
            free.store(mib * MIB, Ordering::Relaxed);
            assert_eq!(headroom.room(), room, "{mib} MiB");
        }
        assert!(!data.reserve().exists());
    }

    #[test]
    fn the_reserve_is_given_up_when_nothing_else_is_left_and_made_again() {
        let root = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(500 * MIB));
        let data = DataDir::new(root.path());
        let headroom = Headroom::open_with(&data, OPTIONS, volume(&free)).unwrap();
        assert_eq!(headroom.reserve_bytes(), 16 * MIB);
        assert!(fs::metadata(data.reserve()).unwrap().blocks() * 512 >= 16 * MIB);

        free.store(20 * MIB, Ordering::Relaxed);
        assert_eq!(headroom.room(), Room::Scarce);
        assert!(data.reserve().exists());
        free.store(MIB, Ordering::Relaxed);
        assert_eq!(headroom.room(), Room::Exhausted);
        assert!(!data.reserve().exists());
        assert_eq!(headroom.reserve_bytes(), 0);

        free.store(47 * MIB, Ordering::Relaxed);
        assert!(!headroom.restore(), "it would not be ample with the reserve");
        free.store(48 * MIB, Ordering::Relaxed);
        assert!(headroom.restore());
        assert!(!headroom.restore(), "it is there already");
        assert_eq!(fs::metadata(data.reserve()).unwrap().len(), 16 * MIB);
    }

    #[test]
    fn a_start_on_a_full_volume_gives_the_reserve_up_first() {
        let root = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(500 * MIB));
        let data = DataDir::new(root.path());
        drop(Headroom::open_with(&data, OPTIONS, volume(&free)).unwrap());
        assert!(data.reserve().exists());
        free.store(0, Ordering::Relaxed);
        let headroom = Headroom::open_with(&data, OPTIONS, volume(&free)).unwrap();
        assert!(!data.reserve().exists());
        assert!(headroom.is_out());
    }

    #[test]
    fn half_a_reserve_is_none() {
        let root = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(0));
        let data = DataDir::new(root.path());
        // The length is right, the space is not there.
        File::create(data.reserve()).unwrap().set_len(16 * MIB).unwrap();
        let headroom = Headroom::open_with(&data, OPTIONS, volume(&free)).unwrap();
        assert_eq!(headroom.reserve_bytes(), 0);
        assert!(!data.reserve().exists());
        free.store(500 * MIB, Ordering::Relaxed);
        assert!(headroom.restore());
    }

    #[test]
    fn few_inodes_are_little_room_and_none_are_no_bound() {
        let space = |inodes_total, inodes_available| Space {
            total: 1000 * MIB,
            available: 900 * MIB,
            inodes_total,
            inodes_available,
        };
        assert_eq!(inodes(&space(0, 0)), Room::Ample);
        assert_eq!(inodes(&space(100_000, 256)), Room::Ample);
        assert_eq!(inodes(&space(100_000, 255)), Room::Scarce);
        assert_eq!(inodes(&space(100_000, 63)), Room::Exhausted);
        assert_eq!(inodes(&space(1_000, 50)), Room::Ample);
        assert_eq!(inodes(&space(1_000, 49)), Room::Scarce);
        assert_eq!(inodes(&space(1_000, 24)), Room::Exhausted);
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(MIB));
        let data = DataDir::new(root.path());
        let headroom = Headroom::open_with(&data, OPTIONS, volume(&free)).unwrap();
        assert!(headroom.describe().contains("1048576 bytes left"), "{}", headroom.describe());
    }
}
