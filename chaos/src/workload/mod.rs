//! What clients do to a cluster while it is hurt, and the book of what they were promised.

mod chunked;
mod churn;
mod images;
mod invariant;
mod ledger;
mod liars;
mod load;
mod probe;
mod request;
mod tags;
mod targets;
mod transfer;

pub(crate) use churn::Churn;
pub use invariant::Invariant;
pub use ledger::{Counts, Kept, Ledger};
pub(crate) use load::{Load, LoadOptions};
pub(crate) use probe::{ATTEMPT_PATIENCE, first_success};
pub(crate) use request::{Reading, Wrote};
pub(crate) use tags::{first_write, has_history, register_manifest};
pub(crate) use targets::Targets;
pub(crate) use transfer::{Transfer, pull_resumed, push_resumed};
