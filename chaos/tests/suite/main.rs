//! What a user of Tercet can see, checked from outside on real processes.
//!
//! One test program, so that it is linked once; one module per promise. Every test has a cluster of its
//! own; clusters take turns on the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access_replicas;
mod api_blobs;
mod api_lists;
mod api_manifests;
mod backup;
mod clients;
mod collection;
mod concurrency;
mod conformance;
mod costs;
mod deletes;
mod dev_command;
mod disk_full;
mod drain;
mod edge;
mod hostile_content;
mod hostile_framing;
mod hostile_http2;
mod hostile_load;
mod hostile_manifests;
mod hostile_names;
mod hostile_peers;
mod hostile_slow;
mod hostile_uploads;
mod large_layer;
mod leftovers;
mod login_replicas;
mod placement;
mod push_pull;
mod refused_replicas;
mod repair;
mod resource_limits;
mod restart_all;
mod retention;
mod scale;
mod scrub;
mod settings;
mod state_hash;
mod survive_kill;
mod two_of_three_down;
mod upgrade;
mod uploads_fencing;
mod wiped_replica;
