//! What must be true of a cluster that is hurt, and of what is left of it: one file to an invariant.
//!
//! | Invariant | File | Judged |
//! |---|---|---|
//! | I1 durability | `durability` | during pulls, and at the end: everything kept, from every replica |
//! | I2 digests | `digests` | every answer as it comes; at the end: what only liars spoke of |
//! | I3 tags | `tags`, with `history`, `linearizable`, `register`, `shrink` | at the end: the history of each tag |
//! | I4 completeness | `completeness` | refused manifests; at the end: whatever can be seen, through every replica |
//! | I5 convergence | `convergence` | at the end: one entry of the log, one state, every blob, the same tags |
//! | I6 collection | `collection` | during the storm of W4, and at its end: the blobs on the disks |
//! | I7 errors | `errors` | every refusal as it comes; at the end: the logs |
//! | I8 liveness | `liveness` | after each fault that leaves a majority; at the end: the timeline |
//! | I9 bounds | `bounds` | all the time, with the verdict at the end |
//! | I10 unknowns | `unknowns` | every request as it goes out and ends; at the end: the books |
//!
//! A scenario lists the invariants that it is about. Each of those must have been judged to the end, or the run is void.
//! What costs nothing is judged in every run, and a broken promise counts whoever lists it; I4, I6 and the timeline's
//! part of I8 are judged only where they are listed, since elsewhere they are not promised or nothing leads up to them.

mod bounds;
mod collection;
mod completeness;
mod convergence;
mod copies;
mod digests;
mod durability;
mod errors;
mod history;
mod linearizable;
mod liveness;
mod register;
mod shrink;
mod tags;
mod unknowns;

pub(crate) use bounds::{Bounds, Sampler};
pub(crate) use collection::{Late, check_collection};
pub(crate) use completeness::check_completeness;
pub(crate) use convergence::{Within, check_state, same_views, wait_converged};
pub(crate) use copies::{check_copies, check_newest};
pub(crate) use digests::check_digests;
pub(crate) use durability::check_kept;
pub(crate) use errors::check_errors;
pub use history::{Operation, OperationKind};
pub use linearizable::{Explained, SearchLimits, explain};
pub(crate) use liveness::{PULL_PATIENCE, RESUME_MAX, RESUME_MAX_SHARED, check_liveness};
pub use register::check_register;
pub use tags::{CheckedTags, check_history};
pub(crate) use tags::{check_tags, check_tags_so_far};
pub use unknowns::Ends;
pub(crate) use unknowns::{End, check_unknowns};
