//! The tables of the state machine, in the `state` database: one column family each.

mod batch;
mod derived;
mod inspect;
mod keys;
mod read;
mod records;
mod rules;
mod settings;
mod state_db;
mod state_hash;
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
pub use rules::{
    RULE_NAME_BYTES_MAX, RULE_PATTERNS_MAX, RULES_MAX, RuleKind, RulesError, check_immutable_tags,
    check_retention,
};
pub use settings::{
    COLLECTION_HOLD_MAX_MS, CollectionHold, ImmutableTagRule, RetentionRule, Secret, TokenKey,
    Untagged,
};
pub use state_db::StateDb;
pub use state_hash::{HashedState, SystemKeys, TableHash};
pub use table::{KeyValue, KvRead, Table};
