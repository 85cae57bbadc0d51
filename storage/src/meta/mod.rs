//! The tables of the state machine, in the `state` database: one column family each.

mod batch;
mod keys;
mod read;
mod records;
mod state_db;
mod table;
mod write;

pub use batch::{MetaBatch, MetaBatchOps};
pub use read::Meta;
pub use records::{
    BlobLinkRecord, BlobRecord, ManifestLinkRecord, ManifestRecord, MemberRecord, ReferrerRecord,
    RepositoryRecord, TagRecord, schemas,
};
pub use state_db::StateDb;
pub use table::{KeyValue, KvRead, Table};
