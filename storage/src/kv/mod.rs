//! The two RocksDB databases of a replica, and the envelope around every record in them.

mod checkpoint;
pub mod codec;
mod columns;
mod open;
mod options;
mod read_only;
mod wal;

pub use checkpoint::checkpoint;
pub use columns::LogColumn;
pub use open::{is_full, open_log_db, open_state_db, sync_wal};
pub(crate) use read_only::open_read_only;
pub use read_only::{open_log_db_read_only, state_wal_is_torn, wal_damage};
