//! Tercet: a replicated, highly available OCI registry.
//!
//! This crate is the registry itself: HTTP, uploads, peers, operations and the command line. What is
//! at rest on one node lives in `tercet-storage`; agreement on metadata lives in `tercet-raft`.

pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod core;
pub mod exit;
pub mod ops;
pub mod peer;
pub mod registry;
pub mod server;
pub mod telemetry;
mod text;
pub mod webhook;
pub mod worker;

/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
