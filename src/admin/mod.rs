//! What an operator may ask of a replica: the routes below `/admin` of the peer listener.
//!
//! Whoever can speak to that listener holds the key of a replica, and so may do all of it. The command
//! line is the client; `cli/admin.rs` is its side. Every change is a line in the audit log, written by
//! the replica that carried it out.

mod audit;
mod backup;
mod error;
pub mod gc;
mod leader;
pub mod member;
pub mod retention;
pub mod scrub;
pub mod state_hash;

use std::sync::Arc;

use axum::{Router, middleware};

use crate::core::Core;
pub use audit::Change;
pub use error::{AdminError, AdminErrorBody};
pub use leader::on_leader;
pub use tercet_raft::Force;

/// All routes below `/admin`, for [`PeerState::attach_admin`](crate::peer::PeerState::attach_admin).
pub fn router(core: &Arc<Core>) -> Router {
    Router::new()
        .merge(member::routes(core))
        .merge(backup::routes())
        .merge(gc::routes(core))
        .merge(retention::routes(core))
        .merge(scrub::routes(core))
        .merge(state_hash::routes())
        .fallback(unknown)
        .layer(middleware::from_fn(audit::record))
        .with_state(Arc::clone(core))
}

/// A command line that is newer than the replica asks for what is not there yet.
async fn unknown() -> AdminError {
    AdminError::not_found("this replica has no such route")
        .hint("the command and the replica are of different versions: use the same binary for both")
}
