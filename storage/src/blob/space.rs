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
}

impl Space {
    /// How much is used, in percent, rounded up.
    #[must_use]
    pub fn used_percent(&self) -> u8 {
        if self.total == 0 {
            return 100;
        }
        let used = u128::from(self.total.saturating_sub(self.available));
        u8::try_from((used * 100).div_ceil(u128::from(self.total))).unwrap_or(100)
    }
}

/// Asks the file system. A function so that tests can fill the disk without filling one.
pub(super) type SpaceProbe = fn(&Path) -> io::Result<Space>;

/// The real probe: `statvfs`.
pub(super) fn statvfs(path: &Path) -> io::Result<Space> {
    let status = rustix::fs::statvfs(path)?;
    let used = status.f_blocks.saturating_sub(status.f_bfree);
    // Blocks reserved for root are neither used nor ours.
    let blocks = used.saturating_add(status.f_bavail);
    Ok(Space {
        total: blocks.saturating_mul(status.f_frsize),
        available: status.f_bavail.saturating_mul(status.f_frsize),
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
        };
        let fits = space.available >= reserved.saturating_add(needed).saturating_add(self.headroom);
        if fits && after.used_percent() < self.refuse_percent.max(1) {
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

    /// A volume of 1000 MiB with 100 MiB left.
    fn probe(_: &Path) -> io::Result<Space> {
        Ok(Space { total: 1000 * MIB, available: 100 * MIB })
    }

    fn gate(refuse_percent: u8, headroom: u64) -> Arc<SpaceGate> {
        SpaceGate::new("/data".into(), refuse_percent, headroom, probe)
    }

    #[test]
    fn percent_is_rounded_up_and_bounded() {
        assert_eq!(Space { total: 1000, available: 1000 }.used_percent(), 0);
        assert_eq!(Space { total: 1000, available: 999 }.used_percent(), 1);
        assert_eq!(Space { total: 1000, available: 50 }.used_percent(), 95);
        assert_eq!(Space { total: 1000, available: 49 }.used_percent(), 96);
        assert_eq!(Space { total: 0, available: 0 }.used_percent(), 100);
        assert_eq!(Space { total: u64::MAX, available: 0 }.used_percent(), 100);
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
    }
}
