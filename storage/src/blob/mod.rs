//! Blob files, and the uploads that become them.
//!
//! A blob is published by writing a temporary file, syncing it, renaming it and syncing the directory, so a
//! file under its final name is always whole. Publishing, deleting and quarantining one digest exclude each
//! other.

mod buffers;
mod collect;
mod confirm;
mod direct;
mod hashing;
mod layout;
mod list;
mod locks;
mod pending;
mod pins;
mod publish;
mod quarantine;
mod reader;
mod scrub;
mod sink;
mod space;
mod stat;
mod store;
mod sums;
mod upload;
mod upload_id;
mod verification;
mod verified;
mod writeback;
mod writer;

pub use collect::{Standing, Unlinked};
pub use layout::{DataDir, DirectoryLock};
pub use reader::{BlobReader, Broken, Rest};
pub use scrub::{Inspection, Verdict};
pub(crate) use space::statvfs;
pub use space::{ReservedSpace, Space};
pub use stat::BlobStat;
pub use store::{BlobStore, BlobStoreOptions};
pub use upload::{Fence, UploadFile, UploadInfo, UploadMeta};
pub use upload_id::{UploadId, UploadIdError};
pub use writer::BlobWriter;
