//! The seams at which `chaos/simulation` takes hold: dice, threads, and the log.
//!
//! No interface: it changes with what the simulation needs. All of it acts on the threads on which [`enter`]
//! was called, and on no other.

mod runtime;
mod watch;

use std::cell::RefCell;
use std::io;

use openraft::storage::RaftLogStorage;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::consensus::{Consensus, StartOptions};
use crate::error::RaftError;
use crate::latency::Latency;
use crate::records::{
    LOG_ID, LogIdRecord, VOTE, VoteRecord, decode_entry as read_entry, encode_entry as write_entry,
    to_io,
};

pub use runtime::Runtime;
pub use watch::{InOrder, Receiver, Sender};

pub use crate::type_config::TypeConfig;

/// An entry of the log, as openraft knows it.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// The position of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;

thread_local! {
    static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// While it lives, its thread simulates.
#[derive(Debug)]
pub struct Entered {
    _databases: tercet_storage::simulation::Entered,
}

impl Drop for Entered {
    fn drop(&mut self) {
        DICE.with_borrow_mut(|dice| *dice = None);
    }
}

/// From now on this thread simulates: its dice fall by `seed`, its databases are in memory, and nothing is done on
/// other threads.
#[must_use]
pub fn enter(seed: u64) -> Entered {
    DICE.with_borrow_mut(|dice| *dice = Some(StdRng::seed_from_u64(seed)));
    Entered { _databases: tercet_storage::simulation::enter() }
}

pub(crate) fn is_on() -> bool {
    DICE.with_borrow(Option::is_some)
}

/// Random bytes by the seed, if this thread simulates.
pub(crate) fn dice<const N: usize>() -> Option<[u8; N]> {
    DICE.with_borrow_mut(|dice| {
        let mut bytes = [0; N];
        dice.as_mut()?.fill_bytes(&mut bytes);
        Some(bytes)
    })
}

/// Takes part with a log of the simulation.
///
/// # Errors
/// As [`Consensus::start`].
pub async fn start<L: RaftLogStorage<TypeConfig>>(
    options: StartOptions,
    log: L,
) -> Result<Consensus, RaftError> {
    Consensus::start_on(options, log, Latency::default()).await
}

/// An entry as it lies in the log.
///
/// # Errors
/// It cannot be written.
pub fn encode_entry(entry: Entry) -> io::Result<Vec<u8>> {
    write_entry(entry).map_err(to_io)
}

/// An entry from the log.
///
/// # Errors
/// It is none.
pub fn decode_entry(bytes: &[u8]) -> io::Result<Entry> {
    read_entry(bytes)
}

/// A vote as it lies in the log.
///
/// # Errors
/// It cannot be written.
pub fn encode_vote(vote: &Vote) -> io::Result<Vec<u8>> {
    tercet_storage::codec::encode(VOTE, &VoteRecord::from(vote)).map_err(to_io)
}

/// A vote from the log.
///
/// # Errors
/// It is none.
pub fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let record: VoteRecord = tercet_storage::codec::decode(VOTE, bytes).map_err(to_io)?;
    Ok(record.into())
}

/// A position as it lies in the log.
///
/// # Errors
/// It cannot be written.
pub fn encode_log_id(id: &LogId) -> io::Result<Vec<u8>> {
    tercet_storage::codec::encode(LOG_ID, &LogIdRecord::from(id)).map_err(to_io)
}

/// A position from the log.
///
/// # Errors
/// It is none.
pub fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    let record: LogIdRecord = tercet_storage::codec::decode(LOG_ID, bytes).map_err(to_io)?;
    Ok(record.into())
}
