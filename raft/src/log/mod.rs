//! The Raft log on disk: entries, vote, committed and purged positions.

mod flusher;
mod reader;
mod store;

pub use reader::LogReader;
pub use store::LogStore;
