//! Who asks, what they may do, and what is written down about it.

pub mod action;
pub mod principal;

pub use action::{Action, Actions};
pub use principal::Principal;
