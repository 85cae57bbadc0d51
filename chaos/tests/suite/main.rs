//! What a user of Tercet can see, checked from outside on real processes.
//!
//! One test program, so that it is linked once; one module per promise. Every test has a cluster of its
//! own; clusters take turns on the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod api_blobs;
mod api_lists;
mod api_manifests;
mod clients;
mod concurrency;
mod dev_command;
mod drain;
mod hostile_manifests;
mod hostile_names;
mod hostile_uploads;
mod large_layer;
mod leftovers;
mod push_pull;
mod restart_all;
mod survive_kill;
mod two_of_three_down;
mod wiped_replica;
