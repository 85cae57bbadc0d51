//! Bytes at rest on one node: blob files, RocksDB, record formats, and the OCI vocabulary they are named by.
//!
//! This crate knows no peers, no Raft and no HTTP.

mod blob;
mod clock;
mod durable;
mod error;
pub mod failpoint;
pub mod fatal;
mod kv;
mod meta;
mod oci;

pub use blob::{
    BlobReader, BlobStore, BlobStoreOptions, BlobWriter, DataDir, DirectoryLock, ReservedSpace,
    Space, UploadFile, UploadId, UploadIdError, UploadInfo, UploadMeta,
};
pub use clock::{Clock, SystemClock};
pub use durable::{atomic_write, create_dir_durable, remove_dir_durable, sync_dir, sync_file};
pub use error::StorageError;
pub use kv::codec::{self, CodecError, Schema};
pub use kv::{LogColumn, checkpoint, open_log_db, open_state_db, sync_wal};
pub use meta::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, IMMUTABLE_NAME_BYTES_MAX,
    IMMUTABLE_PATTERNS_MAX, IMMUTABLE_RULES_MAX, ImmutableTagRule, ImmutableTagsError,
    ImmutableTagsRecord, KeyValue, KvRead, ManifestLinkRecord, ManifestRecord, MemberRecord, Meta,
    MetaBatch, MetaBatchOps, ReferrerRecord, RepositoryRecord, Secret, StateDb, Table, TagRecord,
    TokenKey, TokenKeysRecord, check_immutable_tags, schemas,
};
pub use oci::{
    Algorithm, Descriptor, Digest, DigestError, DigestHasher, ManifestError, ManifestLimits,
    ManifestReference, ManifestSummary, NAME_BYTES_MAX, NameError, PATTERN_BYTES_MAX, Pattern,
    PatternError, Reference, ReferenceError, ReferenceKind, RepositoryName, TAG_BYTES_MAX, Tag,
    media_type, parse_manifest,
};
