//! Tests of the crate through its public interface. One binary, because each links RocksDB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod blobs;
mod collect;
mod crash;
mod databases;
mod golden;
mod scrub;
mod support;
mod tables;
mod uploads;
