//! The tables of the state machine, in the `state` database: one column family each.

mod batch;
mod derived;
mod inspect;
mod keys;
mod read;
mod records;
mod retention;
mod settings;
mod state_db;
mod table;
mod write;

pub use batch::{MetaBatch, MetaBatchOps};
pub use inspect::{StateInspection, TableProblem};
pub use read::Meta;
pub use records::{
    AwaitedBlobRecord, BlobLinkRecord, BlobRecord, CollectionHoldsRecord, FeatureLevelRecord,
    ImmutableTagsRecord, ManifestLinkRecord, ManifestRecord, MemberRecord, PullRecord,
    ReferrerRecord, RepositoryRecord, RetentionRecord, TagRecord, TokenKeysRecord, schemas,
};
pub use retention::{
    RETENTION_NAME_BYTES_MAX, RETENTION_PATTERNS_MAX, RETENTION_RULES_MAX, RetentionError,
    check_retention,
};
pub use settings::{
    COLLECTION_HOLD_MAX_MS, CollectionHold, IMMUTABLE_NAME_BYTES_MAX, IMMUTABLE_PATTERNS_MAX,
    IMMUTABLE_RULES_MAX, ImmutableTagRule, ImmutableTagsError, RetentionRule, Secret, TokenKey,
    Untagged, check_immutable_tags,
};
pub use state_db::StateDb;
pub use table::{KeyValue, KvRead, Table};
