//! Disks that can be filled up.

mod volume;

pub(crate) use volume::unmount_below;
pub use volume::{SmallVolume, VolumeSpec};
