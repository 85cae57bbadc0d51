//! The HTTP server under every listener: its own accept loop, because each wait needs a deadline.

pub mod accept;
mod activity;
mod body;
mod connection;
mod gate;
mod handle;
mod limits;
mod observe;

pub use accept::Drained;
pub use body::BodyTooSlow;
pub use connection::RemoteAddress;
pub use gate::Gate;
pub use handle::{Server, ServerParts};
pub(crate) use limits::HAND_OVER_MAX;
pub use limits::ServerLimits;
