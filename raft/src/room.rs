//! A full disk, here or on other voters: what is still proposed and what is still taken.
//!
//! RocksDB does not survive the end of the volume, so Raft keeps away from it. A leader refuses commands
//! that its disk, or the disks of too many voters, have no room for. A follower without room refuses entries
//! and so merely lags; it goes on confirming its leader and voting, and takes entries again by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesRequest;
use tercet_storage::Room;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::command::{Command, Growth};
use crate::consensus::Inner;
use crate::error::{ProposeError, RpcError};
use crate::type_config::alias::Payload;
use crate::type_config::{NodeId, TypeConfig};

/// Between two looks at the volume while nothing is written.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a voter's refusal counts. It is offered the same entries again much sooner than this.
const REFUSAL_COUNTS_FOR: Duration = Duration::from_secs(5);

/// Which others have lately refused entries because their disks are full. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct FullPeers {
    refused: Arc<Mutex<BTreeMap<NodeId, Instant>>>,
}

impl FullPeers {
    /// It has just refused entries.
    pub(crate) fn refused(&self, peer: NodeId) {
        self.lock().insert(peer, Instant::now());
    }

    /// It has just taken entries.
    pub(crate) fn took(&self, peer: NodeId) {
        self.lock().remove(&peer);
    }

    fn contains(&self, peer: NodeId) -> bool {
        self.lock().get(&peer).is_some_and(|at| at.elapsed() < REFUSAL_COUNTS_FOR)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the volume until stopped: gives the reserve up and makes it again, and keeps a replica that
/// could not even write its own vote from standing for election.
pub(crate) async fn keep(inner: Arc<Inner>, stop: CancellationToken) {
    let mut before = Room::Ample;
    loop {
        let room = inner.headroom.room();
        if room != before {
            tell(&inner, room);
            before = room;
        }
        inner.raft.runtime_config().elect(!inner.headroom.is_out() && !inner.is_removed());
        if room == Room::Ample {
            let headroom = inner.headroom.clone();
            let made = blocking(move || headroom.restore()).await;
            if matches!(made, Ok(true)) {
                tracing::info!("there is space again: the reserve of the data directory is back");
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn tell(inner: &Inner, room: Room) {
    let volume = inner.headroom.describe();
    match room {
        Room::Ample => tracing::info!("there is room for metadata again"),
        Room::Scarce => tracing::error!(
            %volume,
            "the disk is nearly full: pushes are refused with 507 where this replica leads, deletes are taken"
        ),
        Room::Exhausted => tracing::error!(
            %volume,
            "the disk is full: this replica takes no log entries until there is space; it serves pulls"
        ),
    }
}

impl Inner {
    /// Why a command must not be proposed here now, for want of space.
    pub(crate) fn no_room_for(&self, command: &Command) -> Option<String> {
        let refused = match self.headroom.room() {
            Room::Ample => false,
            Room::Scarce => command.growth() == Growth::Grows,
            Room::Exhausted => true,
        };
        if refused {
            return Some(format!("{}: {}", self.node.name, self.headroom.describe()));
        }
        self.voters_without_room()
    }

    /// Set while so many voters refuse entries for want of space that nothing can be committed.
    pub(crate) fn voters_without_room(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let full: Vec<&str> = membership
            .voter_ids()
            .filter(|id| self.full_peers.contains(*id))
            .filter_map(|id| membership.get_node(&id).map(|node| node.name.as_str()))
            .collect();
        let voters = membership.voter_ids().count();
        let can_go_on = voters.saturating_sub(full.len()) > voters / 2;
        (!can_go_on && !full.is_empty()).then(|| {
            format!("the disks of {} are full; make room there, or delete images", full.join(", "))
        })
    }

    /// A write through this replica would wait in vain for what it cannot apply itself.
    pub(crate) fn refuse_writes_when_exhausted(&self) -> Result<(), ProposeError> {
        if self.headroom.room() == Room::Exhausted {
            let text = format!("{}: {}", self.node.name, self.headroom.describe());
            return Err(ProposeError::NoSpace(text));
        }
        Ok(())
    }

    /// A follower's look before it writes. A new leader's first entry and changes of the membership are
    /// small and are what the group needs to get out of this; they are taken as long as a vote would be.
    pub(crate) fn room_to_append(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<(), RpcError> {
        if request.entries.is_empty() || self.headroom.room() > Room::Exhausted {
            return Ok(());
        }
        // A new leader does not know how far this log goes and offers its end again: that costs nothing.
        let last = self.raft.metrics().borrow_watched().last_log_index;
        let mut new = request.entries.iter().filter(|entry| Some(entry.log_id.index) > last);
        if new.any(|entry| matches!(entry.payload, Payload::Normal(_))) || self.headroom.is_out() {
            return Err(RpcError::NoSpace(self.headroom.describe()));
        }
        Ok(())
    }

    /// A look before a vote is written.
    pub(crate) fn room_to_vote(&self) -> Result<(), RpcError> {
        if self.headroom.room() == Room::Exhausted && self.headroom.is_out() {
            return Err(RpcError::NoSpace(self.headroom.describe()));
        }
        Ok(())
    }

    /// A look before this replica stands for election because the leader wants to go.
    pub(crate) fn room_to_lead(&self) -> Result<(), RpcError> {
        if self.headroom.room() < Room::Ample {
            return Err(RpcError::NoSpace(self.headroom.describe()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_peer_counts_as_full_until_it_takes_entries() {
        let full = FullPeers::default();
        assert!(!full.contains(7));
        full.refused(7);
        assert!(full.clone().contains(7) && !full.contains(8));
        full.took(7);
        assert!(!full.contains(7));
        let old = Instant::now().checked_sub(REFUSAL_COUNTS_FOR).unwrap();
        full.lock().insert(7, old);
        assert!(!full.contains(7), "one that was not asked again is not known to be full");
    }
}
