//! What is done to a network: shapes of partitions on hosts, and bad links made in user space.

mod links;
mod partition;
mod proxy;
mod storm;

pub(crate) use links::Links;
pub(crate) use partition::Side;
pub(crate) use proxy::{Damage, Direction, Proxy, Weather};
pub(crate) use storm::{KINDS, Nemesis, draw_together};
