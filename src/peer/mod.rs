//! The other replicas: who should hold a blob, and how bytes and messages get to them and back.
//!
//! [`Client`] speaks to one peer, [`server`] answers one. On top of them: [`SessionReplicas`] copies
//! an upload to its holders while it arrives, [`ensure_copies`] pushes a finished blob further,
//! [`Fetcher`] brings a blob that is not here, and [`Repair`] does so without being asked.

mod call;
mod claim;
pub mod client;
pub mod directory;
mod edge_cache;
pub mod error;
pub mod failover;
mod fetch;
mod forward;
mod held;
mod keep;
mod link;
pub mod placement;
mod relay;
pub mod repair;
pub mod replicate;
pub mod server;
mod stall;
pub mod tls;
pub mod transport;
pub mod wire;

#[cfg(test)]
mod tests;

pub use claim::Claim;
pub use client::{Client, ClientOptions};
pub use directory::{Directory, Peer};
pub use edge_cache::{EdgeCache, EdgeCacheParts};
pub use error::{ForwardError, PeerError};
pub use failover::read_or_go_on;
pub use fetch::{BlobStream, FetchError, Fetcher, FetcherParts, Kept};
pub use held::{HeldError, HeldSessions};
pub use placement::{
    companions, is_candidate, is_placed_on, placement, placement_key, preference, write_quorum,
};
pub use repair::{Budget, Catalogue, Repair, RepairParts};
pub use replicate::{Copies, SessionReplicas, SessionReplicasOptions, ensure_copies};
pub use server::{Forwarded, PeerState};
pub use tls::{PeerTls, TlsError, TlsFiles};
pub use transport::PeerTransport;
pub use wire::{PeerStatus, SessionInfo};
