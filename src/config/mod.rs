//! Configuration: one TOML file, `TERCET_SECTION_KEY` variables, and flags for the common keys.
//!
//! Later sources win: default, file, environment, flag. Every key is listed once in [`keys`], and
//! `docs/src/configuration.md` is tested against that list.

mod access;
mod check;
mod check_access;
mod check_tls;
mod environment;
mod error;
mod file;
mod housekeeping;
pub mod keys;
mod limits;
mod load;
mod member;
mod sections;

pub use access::{Access, AccessRule, ImmutableTags, Kubernetes, Robot};
pub use check::check;
pub(crate) use check::replica_name as check_replica_name;
pub use check_tls::check_listener_files;
pub use error::ConfigError;
pub use housekeeping::{Gc, Retention, RetentionMode, RetentionRuleEntry, Scrub, UntaggedPolicy};
pub use limits::Limits;
pub use load::{Overrides, Sources, load};
pub use member::MemberEntry;
pub use sections::{
    ClientAuth, Cluster, Config, Consistency, ListenerTls, Log, LogFormat, Node, NodeRole, Ops,
    Peer, PeerTls, Registry, SparseManifests, Webhook,
};
