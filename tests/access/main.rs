//! Who may do what, on a real replica with users and rules.
//!
//! Tests of known faults of other registries are named after them; `docs/src/SECURITY.md` has the table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod audit;
mod config_check;
mod cves;
mod matrix;
mod support;
