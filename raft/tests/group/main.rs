//! Replicas in one process, connected by function calls: what the group promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod content;
mod harness;
mod levels;
mod members;
mod promises;
mod settings;
mod space;
