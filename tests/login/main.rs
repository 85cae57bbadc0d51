//! Who it is: every kind of credentials, against a replica that is a process of its own, and, where a
//! test decides what time it is, against the parts in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod basic;
mod kubernetes;
mod members;
mod reload;
mod replica;
mod robots;
mod secrets;
mod start;
mod throttle;
mod token_flow;
mod token_hostile;
