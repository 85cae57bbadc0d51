//! The Raft log on disk: entries, vote, committed and purged positions.

mod flusher;
mod reader;
mod store;
mod tail;

pub use reader::LogReader;
pub(crate) use reader::{KEY_COMMITTED, KEY_PURGED, KEY_VOTE, column};
pub use store::LogStore;
