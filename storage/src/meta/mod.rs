//! The tables of the state machine, in the `state` database: one column family each.

mod batch;
mod keys;
mod read;
mod records;
mod settings;
mod state_db;
mod table;
mod write;

pub use batch::{MetaBatch, MetaBatchOps};
pub use read::Meta;
pub use records::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, ImmutableTagsRecord, ManifestLinkRecord,
    ManifestRecord, MemberRecord, ReferrerRecord, RepositoryRecord, TagRecord, TokenKeysRecord,
    schemas,
};
pub use settings::{
    IMMUTABLE_NAME_BYTES_MAX, IMMUTABLE_PATTERNS_MAX, IMMUTABLE_RULES_MAX, ImmutableTagRule,
    ImmutableTagsError, Secret, TokenKey, check_immutable_tags,
};
pub use state_db::StateDb;
pub use table::{KeyValue, KvRead, Table};
