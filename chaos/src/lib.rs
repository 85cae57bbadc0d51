//! Looks at real Tercet binaries from outside: it starts clusters of processes, talks to them as any
//! registry client would, hurts them, and checks what they promised.
//!
//! Nothing here links against the registry's own crates: a check that shares code with the thing it
//! checks would share its mistakes.

mod binary;
mod client;
mod cluster;
mod content;
mod dev;
mod digest;
mod docker;
mod files;
mod images;
mod large;
mod layout;
mod ports;
mod raw;
mod replica;
mod scratch;
mod status;
mod tools;
mod turn;
mod wait;

pub use binary::Binary;
pub use client::{Answer, RegistryClient, Target, Upload};
pub use cluster::{Cluster, ClusterOptions};
pub use content::{Blob, EMPTY_JSON, Image, MediaType, artifact_for, image_index, random_bytes};
pub use dev::DevCluster;
pub use digest::{Hasher, sha256, sha512};
pub use docker::DockerDaemon;
pub use files::{FileCount, count_files};
pub use images::RealImages;
pub use large::LargeBlob;
pub use layout::{Descriptor, Layout};
pub use ports::PortBlock;
pub use raw::{RawAnswer, raw_exchange, raw_send_and_cut};
pub use replica::{Memory, Replica};
pub use scratch::Scratch;
pub use status::{Member, Status};
pub use tools::{Tool, ToolOutput};
pub use turn::{Share, Turn};
pub use wait::{wait_until, within};
