//! Tercet: a replicated, highly available OCI registry.
//!
//! This crate is the registry itself: HTTP, uploads, peers, operations and the command line. What is
//! at rest on one node lives in `tercet-storage`; agreement on metadata lives in `tercet-raft`.

pub mod admin;
pub mod api;
pub mod app;
pub mod auth;
mod backup;
pub mod cli;
pub mod config;
pub mod core;
pub mod exit;
mod fsck;
pub mod loss;
pub mod ops;
pub mod peer;
mod pieces;
pub mod registry;
mod restore;
pub mod scrub;
pub mod server;
pub mod telemetry;
mod text;
pub mod webhook;
pub mod worker;

/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
