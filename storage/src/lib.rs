//! Bytes at rest on one node: blob files, RocksDB, record formats, and the OCI vocabulary they are named by.
//!
//! This crate knows no peers, no Raft and no HTTP.

mod blob;
mod clock;
mod durable;
mod error;
pub mod failpoint;
pub mod fatal;
mod headroom;
mod kv;
mod meta;
mod oci;
pub mod planted;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod stamp;

pub use blob::{
    BlobReader, BlobStat, BlobStore, BlobStoreOptions, BlobWriter, Broken, DataDir, DirectoryLock,
    Fence, Inspection, ReservedSpace, Rest, Space, Standing, Unlinked, UploadFile, UploadId,
    UploadIdError, UploadInfo, UploadMeta, Verdict,
};
pub use clock::{Clock, SystemClock};
pub use durable::{atomic_write, create_dir_durable, remove_dir_durable, sync_dir, sync_file};
pub use error::StorageError;
pub use headroom::{Headroom, HeadroomOptions, Room, SpaceProbe};
pub use kv::codec::{self, CodecError, Schema};
pub use kv::{
    LogColumn, checkpoint, is_full, open_log_db, open_log_db_read_only, open_state_db,
    state_wal_is_torn, sync_wal, wal_damage,
};
pub use meta::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, COLLECTION_HOLD_MAX_MS, CollectionHold,
    CollectionHoldsRecord, FeatureLevelRecord, HashedState, ImmutableTagRule, ImmutableTagsRecord,
    KeyValue, KvRead, ManifestLinkRecord, ManifestRecord, MemberRecord, Meta, MetaBatch,
    MetaBatchOps, PullRecord, RULE_NAME_BYTES_MAX, RULE_PATTERNS_MAX, RULES_MAX, ReferrerRecord,
    RepositoryRecord, RetentionRecord, RetentionRule, RuleKind, RulesError, Secret, StateDb,
    StateInspection, SystemKeys, Table, TableHash, TableProblem, TagRecord, TokenKey,
    TokenKeysRecord, Untagged, check_immutable_tags, check_retention, schemas,
};
pub use oci::{
    Algorithm, Descriptor, Digest, DigestError, DigestHasher, ManifestError, ManifestLimits,
    ManifestReference, ManifestSummary, NAME_BYTES_MAX, NameError, PATTERN_BYTES_MAX, Pattern,
    PatternError, Reference, ReferenceError, ReferenceKind, RepositoryName, TAG_BYTES_MAX, Tag,
    media_type, parse_manifest,
};
pub use stamp::utc_stamp;
