//! Runs the group and the repair of Tercet on a simulated network with simulated time.
//!
//! [`simulate`] runs one seed: some replicas, some clients, faults, and at the end the verdict. Everything that
//! happens follows from the seed, so that a failure can be looked at again as often as one likes. What is real in
//! it and what is not stands in `docs/src/simulation.md`.

mod check;
mod client;
mod disk;
mod faults;
mod linear;
mod log;
mod mutation;
mod net;
mod node;
mod op;
// Used in part.
#[allow(dead_code, unreachable_pub)]
mod peer;
mod push;
mod repair;
mod run;
mod world;

pub use mutation::Mutation;
pub use run::{Counts, Options, Verdict, simulate};
