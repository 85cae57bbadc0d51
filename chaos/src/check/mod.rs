//! What must be true of a cluster after it was hurt.

mod convergence;
mod durability;
mod register;

pub(crate) use convergence::{same_views, wait_converged};
pub(crate) use durability::check_kept;
pub use register::{Operation, OperationKind, check_register};
