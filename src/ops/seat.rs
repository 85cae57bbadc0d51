//! What becomes of a replica that its cluster does not want any more.
//!
//! It may have been removed while it was away, or replaced by another disk: what it says about tags is
//! then of the past, and no answer is better than that one. It stays up, so that an operator can ask it
//! why: ending would only have it started again, to learn the same.

use std::time::Duration;

use tercet_raft::Consensus;
use tokio_util::sync::CancellationToken;

use crate::server::Closer;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A replica's place in its cluster, and what depends on it.
pub struct Seat {
    /// Knows whether the cluster refuses this replica.
    pub consensus: Consensus,
    /// The listeners for clients.
    pub closers: Vec<Closer>,
}

impl Seat {
    /// Runs as a worker until it is cancelled, or the listeners are closed.
    pub async fn watch(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let status = self.consensus.status();
            if !status.removed {
                continue;
            }
            let why = status.refused.unwrap_or_default();
            tracing::error!(
                "the registry listener is closed: {why}. This replica stays up on its ops and peer listeners; docs/src/members.md says what to do"
            );
            for closer in &self.closers {
                closer.close();
            }
            return;
        }
    }
}
