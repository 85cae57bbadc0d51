//! What happened when: requests per replica in bounded memory, faults, leaders, gaps.

mod buckets;
mod leader;
mod picture;
mod recorder;
mod request;
mod sent;

pub(crate) use leader::LeaderWatch;
pub use picture::{Band, Latency, LeaderChange, Mark, Spell, Timeline, Track};
pub(crate) use recorder::{Recorder, Silence};
pub(crate) use request::Outcome;
pub use request::RequestKind;
pub(crate) use sent::{Requests, Sent};
