//! Looks at real Tercet binaries from outside: it starts clusters of processes, talks to them as any
//! registry client would, hurts them, and checks what they promised.
//!
//! Nothing here links against the registry's own crates: a check that shares code with the thing it
//! checks would share its mistakes.

mod bench;
mod binary;
mod check;
mod client;
mod cluster;
mod conformance;
mod containerd;
mod content;
mod daemon;
mod dev;
mod digest;
mod disk;
mod docker;
mod etcd;
mod files;
mod haproxy;
mod http2;
mod images;
mod judge;
mod large;
mod launch;
mod layout;
mod load;
mod memory_group;
mod nemesis;
mod network;
mod not_shown;
mod options;
mod planted;
mod ports;
mod raw;
mod replica;
mod report;
mod say;
mod scenario;
mod scratch;
mod status;
mod stop;
mod timeline;
mod tls;
mod tools;
mod turn;
mod users;
mod verify;
mod wait;
mod workload;

pub use bench::{BenchOptions, Extent, Suite, bench};
pub use binary::Binary;
pub use check::{
    CheckedTags, Ends, Explained, Operation, OperationKind, SearchLimits, check_history,
    check_register, explain,
};
pub use client::{Answer, Login, RegistryClient, Target, Upload};
pub use cluster::Cluster;
pub use conformance::{Conformance, Report};
pub use containerd::ContainerdDaemon;
pub use content::{Blob, EMPTY_JSON, Image, MediaType, artifact_for, image_index, random_bytes};
pub use dev::DevCluster;
pub use digest::{Hasher, sha256, sha512};
pub use disk::{SmallVolume, VolumeSpec};
pub use docker::DockerDaemon;
pub use files::{FileCount, count_files};
pub use haproxy::{Balance, Haproxy};
pub use http2::{
    END_HEADERS, END_STREAM, FrameKind, Http2, Seen, Sent, frame, remembered_field, request_block,
};
pub use images::RealImages;
pub use judge::{
    Case, Control, Mutation, Outcome, Table as JudgeTable, find_mutation, judge, mutations,
};
pub use large::LargeBlob;
pub use launch::Launch;
pub use layout::{Descriptor, Layout};
pub use load::{
    Bodies, Figures, KindFigures, LoadOptions, LoadReport, LoadTarget, Mix, Pace, PushUnit,
    Quantiles, Rest, Round, Source, StormFigures, Workload, load,
};
pub use memory_group::MemoryGroup;
pub use network::{Host, Network};
pub use options::{ClusterOptions, Listener};
pub use ports::PortBlock;
pub use raw::{RawAnswer, raw_exchange, raw_send_and_cut};
pub use replica::{Memory, Replica};
pub use report::{Judged, Report as ScenarioReport, RunReport, Saved, Totals, Verdict};
pub use say::{say, warn};
pub use scenario::{
    Lane, Length, NOTE as PAGE_NOTE, Namespaces, Needs, Run, Scenario, all as scenarios,
    derived_seed, execute, execute_within, find as find_scenario, fixed_seed, new_seed,
    pages as scenario_pages,
};
pub use scratch::Scratch;
pub use status::{Member, Status};
pub use stop::stop;
pub use timeline::{Band, Latency, LeaderChange, Mark, RequestKind, Spell, Timeline, Track};
pub use tls::{Authority, Certificate};
pub use tools::{Tool, ToolOutput};
pub use turn::{Share, Turn};
pub use users::User;
pub use verify::{Mode, Strictness, VerifyOptions, Work, read_password, verify};
pub use wait::{wait_until, within};
pub use workload::{Counts, Invariant, Kept, Ledger};
