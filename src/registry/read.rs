//! Metadata reads: the barrier, and what to do when it cannot be passed.

use std::time::Duration;

use futures_util::FutureExt;
use tercet_raft::{Consensus, Freshness};
use tercet_storage::planted::{PlantedBug, is_planted};
use tercet_storage::{Meta, StateDb, StorageError};
use tokio::time::Instant;

use super::error::RegistryError;
use crate::config::Consistency;
use crate::core::Core;

/// How long a read that found nothing waits for a leader before it gives up. An election takes two
/// seconds or so; a client must have its answer within five.
const STALE_MISS_WAIT: Duration = Duration::from_secs(4);
/// How often it asks again.
const STALE_MISS_STEP: Duration = Duration::from_millis(150);

/// An answer and how current it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Current<T> {
    /// The answer.
    pub(crate) value: T,
    /// Whether everything acknowledged before the question is in it.
    pub(crate) freshness: Freshness,
}

impl<T> Current<T> {
    /// Changes the answer, not its age.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Current<U> {
        Current { value: change(self.value), freshness: self.freshness }
    }
}

/// Reads behind the barrier, or from local state marked stale.
pub(crate) async fn read<T>(
    core: &Core,
    what: impl FnOnce(&Meta<'_, StateDb>) -> Result<T, StorageError>,
) -> Result<Current<T>, RegistryError> {
    let freshness = barrier(core).await;
    if freshness == Freshness::Stale {
        core.metrics.stale_reads.inc();
    }
    let value = look(&core.consensus, |meta| what(&meta))?;
    Ok(Current { value, freshness })
}

/// Like [`read`], for one thing by its name. A thing that is missing here while no leader answers may
/// well exist: "not found" would be a lie about an acknowledged push. So a stale miss waits for the
/// election that is probably running, and is "unavailable" after that.
pub(crate) async fn find<T>(
    core: &Core,
    what: impl Fn(&Meta<'_, StateDb>) -> Result<Option<T>, StorageError>,
) -> Result<Option<Current<T>>, RegistryError> {
    let deadline = Instant::now() + STALE_MISS_WAIT;
    loop {
        let Current { value, freshness } = read(core, &what).await?;
        match (value, freshness) {
            (Some(value), freshness) => return Ok(Some(Current { value, freshness })),
            (None, Freshness::Fresh) => return Ok(None),
            (None, Freshness::Stale) if Instant::now() >= deadline => {
                return Err(RegistryError::Unavailable(
                    "not known to this replica, and no majority answers that could know more"
                        .to_owned(),
                ));
            }
            (None, Freshness::Stale) => tokio::time::sleep(STALE_MISS_STEP).await,
        }
    }
}

/// Reads local metadata as it is, however old.
pub(super) fn look<T>(
    consensus: &Consensus,
    what: impl FnOnce(Meta<'_, StateDb>) -> Result<T, StorageError>,
) -> Result<T, RegistryError> {
    let read = consensus.read(what);
    Ok(read.map_err(|error| RegistryError::Unavailable(format!("local metadata: {error}")))??)
}

/// Refuses a write while there is no majority: now, not after a gigabyte.
pub(crate) async fn writable(core: &Core) -> Result<(), RegistryError> {
    Ok(core.consensus.write_barrier().await?)
}

/// The same for a write that is decided here, by what this replica knows: a new leader may not have applied yet what the
/// former one did.
pub(crate) async fn writable_and_current(core: &Core) -> Result<(), RegistryError> {
    writable(core).await?;
    match core.consensus.read_barrier().await {
        Freshness::Fresh => Ok(()),
        Freshness::Stale => Err(RegistryError::Unavailable("no leader answers".to_owned())),
    }
}

async fn barrier(core: &Core) -> Freshness {
    match core.config.cluster.consistency {
        _ if is_planted(PlantedBug::SkipReadBarrier) => Freshness::Fresh,
        Consistency::Linearizable => core.consensus.read_barrier().await,
        Consistency::Local => {
            // Asks without waiting: readers do not pay for the answer, but it tells when no leader is
            // there to be behind of.
            let _ = core.consensus.read_barrier().now_or_never();
            match core.consensus.stale_for() {
                None => Freshness::Fresh,
                Some(_) => Freshness::Stale,
            }
        }
    }
}
