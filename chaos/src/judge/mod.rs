//! The judge is judged: replicas with a bug that somebody planted must be found out.
//!
//! A checker that never says "violated" proves nothing by saying "held". So each promise that the registry makes is
//! broken on purpose, in a build for tests, and a named scenario must say so, by the right invariant. The same
//! scenario with the same seed and no bug must hold: else it would catch anything.

mod case;
mod mutation;
mod table;
mod trial;

pub use case::{Case, Control, Outcome, judge};
pub use mutation::{Mutation, all as mutations, find as find_mutation};
pub use table::Table;
