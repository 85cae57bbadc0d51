//! How full the volume is, and who may still write to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StorageError;

/// The state of the volume that holds the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes this process could use on an empty volume.
    pub total: u64,
    /// Bytes it can still use.
    pub available: u64,
    /// Files this process could have on an empty volume; 0 where the file system has no such bound.
    pub inodes_total: u64,
    /// Files it can still make. Means nothing while `inodes_total` is 0.
    pub inodes_available: u64,
}

impl Space {
    /// How much is used, of the bytes or of the inodes, whichever is more; in percent, rounded up.
    #[must_use]
    pub fn used_percent(&self) -> u8 {
        self.bytes_used_percent().max(self.inodes_used_percent())
    }

    /// How much of the bytes is used, in percent, rounded up.
    #[must_use]
    pub fn bytes_used_percent(&self) -> u8 {
        percent(self.total, self.available)
    }

    /// How much of the inodes is used, in percent, rounded up; 0 where there is no bound on them.
    #[must_use]
    pub fn inodes_used_percent(&self) -> u8 {
        if self.inodes_total == 0 { 0 } else { percent(self.inodes_total, self.inodes_available) }
    }
}

fn percent(total: u64, available: u64) -> u8 {
    if total == 0 {
        return 100;
    }
    let used = u128::from(total.saturating_sub(available));
    u8::try_from((used * 100).div_ceil(u128::from(total))).unwrap_or(100)
}

/// Asks the file system. A function so that tests can fill the disk without filling one.
pub(super) type SpaceProbe = fn(&Path) -> io::Result<Space>;

/// The real probe: `statvfs`.
pub(crate) fn statvfs(path: &Path) -> io::Result<Space> {
    let status = rustix::fs::statvfs(path)?;
    let used = status.f_blocks.saturating_sub(status.f_bfree);
    // Blocks reserved for root are neither used nor ours.
    let blocks = used.saturating_add(status.f_bavail);
    // Some file systems make inodes as they need them and say 0, or a number that grows.
    let inodes_used = status.f_files.saturating_sub(status.f_ffree);
    let inodes_total = match status.f_files {
        0 => 0,
        _ => inodes_used.saturating_add(status.f_favail),
    };
    Ok(Space {
        total: blocks.saturating_mul(status.f_frsize),
        available: status.f_bavail.saturating_mul(status.f_frsize),
        inodes_total,
        inodes_available: status.f_favail,
    })
}

/// Decides who may write. Content whose size is known is promised its space before the first byte, so that
/// two large blobs cannot each see enough room for one.
pub(super) struct SpaceGate {
    path: PathBuf,
    refuse_percent: u8,
    headroom: u64,
    probe: SpaceProbe,
    reserved: AtomicU64,
}

impl SpaceGate {
    pub(super) fn new(
        path: PathBuf,
        refuse_percent: u8,
        headroom: u64,
        probe: SpaceProbe,
    ) -> Arc<Self> {
        Arc::new(Self { path, refuse_percent, headroom, probe, reserved: AtomicU64::new(0) })
    }

    pub(super) fn space(&self) -> Result<Space, StorageError> {
        (self.probe)(&self.path).map_err(StorageError::io("statvfs", &self.path))
    }

    /// Promises `bytes`, or says that there is no room.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<ReservedSpace, StorageError> {
        // Reserved first and judged after: of two that ask at once, both see the other.
        let before = self.reserved.fetch_add(bytes, Ordering::AcqRel);
        let reserved = ReservedSpace { gate: Arc::clone(self), remaining: bytes };
        self.admit(before, bytes)?;
        Ok(reserved)
    }

    /// Whether `bytes` more fit, beside what others were promised.
    pub(super) fn check(&self, bytes: u64) -> Result<(), StorageError> {
        self.admit(self.reserved.load(Ordering::Acquire), bytes)
    }

    fn admit(&self, reserved: u64, needed: u64) -> Result<(), StorageError> {
        let space = self.space()?;
        let after = Space {
            total: space.total,
            available: space.available.saturating_sub(reserved).saturating_sub(needed),
            ..space
        };
        let watermark = self.refuse_percent.max(1);
        if after.inodes_used_percent() >= watermark {
            return Err(StorageError::NoInodes {
                path: self.path.clone(),
                available: space.inodes_available,
                total: space.inodes_total,
                refuse_percent: self.refuse_percent,
            });
        }
        let fits = space.available >= reserved.saturating_add(needed).saturating_add(self.headroom);
        if fits && after.bytes_used_percent() < watermark {
            return Ok(());
        }
        Err(StorageError::NoSpace {
            path: self.path.clone(),
            needed,
            available: space.available.saturating_sub(reserved),
            refuse_percent: self.refuse_percent,
            headroom: self.headroom,
        })
    }
}

impl fmt::Debug for SpaceGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpaceGate").field("reserved", &self.reserved).finish_non_exhaustive()
    }
}

/// Space promised to content that is arriving. What is not yet written is given back on drop.
#[derive(Debug)]
pub struct ReservedSpace {
    gate: Arc<SpaceGate>,
    remaining: u64,
}

impl ReservedSpace {
    /// The file system now counts `bytes` of the promise as used.
    pub(super) fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.remaining);
        self.remaining -= bytes;
        self.gate.reserved.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for ReservedSpace {
    fn drop(&mut self) {
        self.gate.reserved.fetch_sub(self.remaining, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn bytes(total: u64, available: u64) -> Space {
        Space { total, available, inodes_total: 0, inodes_available: 0 }
    }

    /// A volume of 1000 MiB with 100 MiB left, and with inodes as it needs them.
    fn probe(_: &Path) -> io::Result<Space> {
        Ok(bytes(1000 * MIB, 100 * MIB))
    }

    fn gate(refuse_percent: u8, headroom: u64) -> Arc<SpaceGate> {
        SpaceGate::new("/data".into(), refuse_percent, headroom, probe)
    }

    #[test]
    fn percent_is_rounded_up_and_bounded() {
        assert_eq!(bytes(1000, 1000).used_percent(), 0);
        assert_eq!(bytes(1000, 999).used_percent(), 1);
        assert_eq!(bytes(1000, 50).used_percent(), 95);
        assert_eq!(bytes(1000, 49).used_percent(), 96);
        assert_eq!(bytes(0, 0).used_percent(), 100);
        assert_eq!(bytes(u64::MAX, 0).used_percent(), 100);
    }

    #[test]
    fn watermark_counts_what_the_write_would_use() {
        let gate = gate(95, 0);
        gate.check(59 * MIB).unwrap_err();
        gate.check(60 * MIB).unwrap_err();
        gate.check(40 * MIB).unwrap();
        let error = gate.check(50 * MIB).unwrap_err();
        assert!(error.is_no_space());
        assert!(error.to_string().contains("95 %"), "{error}");
    }

    #[test]
    fn inodes_count_like_bytes_and_only_where_there_are_any() {
        let half = Space { inodes_total: 100, inodes_available: 50, ..bytes(1000, 900) };
        assert_eq!((half.used_percent(), half.inodes_used_percent()), (50, 50));
        let full = Space { inodes_total: 100, inodes_available: 5, ..bytes(1000, 900) };
        assert_eq!(full.used_percent(), 95);
        let unbounded = bytes(1000, 900);
        assert_eq!((unbounded.used_percent(), unbounded.inodes_used_percent()), (10, 0));
    }

    #[test]
    fn without_inodes_nothing_is_taken_however_small() {
        fn probe(_: &Path) -> io::Result<Space> {
            Ok(Space {
                total: 1000 * MIB,
                available: 900 * MIB,
                inodes_total: 2000,
                inodes_available: 100,
            })
        }
        let error = SpaceGate::new("/data".into(), 95, 0, probe).check(0).unwrap_err();
        assert!(error.is_no_space());
        assert!(error.to_string().contains("100 of 2000 inodes"), "{error}");
        SpaceGate::new("/data".into(), 96, 0, probe).check(0).unwrap();
    }

    #[test]
    fn headroom_is_kept() {
        let gate = gate(100, 64 * MIB);
        gate.check(36 * MIB).unwrap();
        gate.check(37 * MIB).unwrap_err();
        gate.check(u64::MAX).unwrap_err();
    }

    #[test]
    fn reservations_exclude_each_other_and_are_given_back() {
        let gate = gate(100, 0);
        let first = gate.reserve(60 * MIB).unwrap();
        assert!(gate.reserve(60 * MIB).is_err());
        // The refused one kept nothing.
        let mut second = gate.reserve(30 * MIB).unwrap();
        second.written(20 * MIB);
        assert_eq!(gate.reserved.load(Ordering::Acquire), 70 * MIB);
        second.written(u64::MAX);
        assert_eq!(gate.reserved.load(Ordering::Acquire), 60 * MIB);
        drop(second);
        drop(first);
        assert_eq!(gate.reserved.load(Ordering::Acquire), 0);
        gate.reserve(90 * MIB).unwrap();
    }

    #[test]
    fn overflowing_reservation_is_refused_and_harmless() {
        let gate = gate(100, 1);
        let _first = gate.reserve(10).unwrap();
        assert!(gate.reserve(u64::MAX).is_err());
        gate.check(MIB).unwrap();
    }

    #[test]
    fn real_volume_answers() {
        let space = statvfs(Path::new("/")).unwrap();
        assert!(space.total >= space.available);
        assert!(space.inodes_total == 0 || space.inodes_total >= space.inodes_available);
    }
}
