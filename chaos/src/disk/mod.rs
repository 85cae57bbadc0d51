//! Disks that can be filled up, that fail, and that lose their power.

mod faulty;
mod volume;

pub(crate) use faulty::{Call, DataLoss, DiskFault, Effect, FaultyDisk, Lost, NameLoss, PowerLoss};
pub(crate) use volume::unmount_below;
pub use volume::{SmallVolume, VolumeSpec};
