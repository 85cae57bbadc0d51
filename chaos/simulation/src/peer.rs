//! The registry's own placement and repair backlog: the same files, without the HTTP around them.

#[path = "../../../src/peer/repair/backlog.rs"]
pub(crate) mod backlog;
#[path = "../../../src/peer/directory.rs"]
pub(crate) mod directory;
#[path = "../../../src/peer/placement.rs"]
pub(crate) mod placement;

pub(crate) use directory::Peer;
pub(crate) use placement::{
    companions, is_candidate, is_placed_on, placement_key, preference, write_quorum,
};
