//! Blob files, and the uploads that become them.
//!
//! A blob is published by writing a temporary file, syncing it, renaming it and syncing the directory, so a
//! file under its final name is always whole. Publishing, deleting and quarantining one digest exclude each
//! other.

mod layout;
mod list;
mod locks;
mod pending;
mod publish;
mod quarantine;
mod reader;
mod sink;
mod space;
mod store;
mod upload;
mod upload_id;
mod verified;
mod writer;

pub use layout::{DataDir, DirectoryLock};
pub use reader::BlobReader;
pub use space::{ReservedSpace, Space};
pub use store::{BlobStore, BlobStoreOptions};
pub use upload::{UploadFile, UploadInfo, UploadMeta};
pub use upload_id::{UploadId, UploadIdError};
pub use writer::BlobWriter;
