//! The two RocksDB databases of a replica, and the envelope around every record in them.

mod checkpoint;
pub mod codec;
mod columns;
mod open;
mod options;
mod wal;

pub use checkpoint::checkpoint;
pub use columns::LogColumn;
pub use open::{open_log_db, open_state_db, sync_wal};
