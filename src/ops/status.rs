//! The status of the cluster as this replica sees it.

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tercet_raft::Member;

use crate::core::Core;
use crate::peer::{Peer, PeerStatus};

/// How long one replica may take to tell its part.
const PEER_DEADLINE: Duration = Duration::from_secs(1);

/// Body of `GET /status`. Fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Equal on every replica of one cluster.
    pub cluster_id: String,
    /// The replica that answers.
    pub name: String,
    /// Its Raft id.
    pub node_id: u64,
    /// Version of its binary.
    pub version: String,
    /// Name of the leader, if one answers.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// Index of the last entry that the answering replica applied.
    pub applied: u64,
    /// Every member, ordered by name.
    pub members: Vec<MemberStatus>,
}

/// One member. What only it knows is null while it does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its configured name.
    pub name: String,
    /// Its Raft id.
    pub node_id: u64,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// It answered within a second.
    pub reachable: bool,
    /// Its Raft term; a replica that is cut off may be behind the others.
    pub term: Option<u64>,
    /// Index of the last entry it applied.
    pub applied: Option<u64>,
    /// Entries it has still to apply.
    pub lag: Option<u64>,
    /// Blobs it should hold and does not.
    pub missing_blobs: Option<u64>,
    /// Bytes in use on the disk of its data directory.
    pub disk_used: Option<u64>,
    /// Size of that disk in bytes.
    pub disk_total: Option<u64>,
}

/// Asks every member and puts the answers together.
pub async fn collect(core: &Core) -> Status {
    let raft = core.consensus.status();
    let identity = core.consensus.identity();
    let members = core.consensus.members();
    let answers = join_all(members.iter().map(|member| ask(core, member))).await;
    // The leader's log may be ahead of ours, and ours ahead of what we know of the leader's.
    let newest = answers
        .iter()
        .flatten()
        .map(|answer| answer.applied)
        .chain([raft.last_log])
        .max()
        .unwrap_or_default();
    Status {
        cluster_id: identity.cluster_id.clone(),
        name: identity.name.clone(),
        node_id: identity.node_id,
        version: crate::VERSION.to_owned(),
        leader: raft.leader,
        term: raft.term,
        applied: raft.applied,
        members: members
            .iter()
            .zip(&answers)
            .map(|(member, answer)| member_status(member, answer.as_ref(), newest))
            .collect(),
    }
}

/// This replica's own part of the status, also what it tells its peers.
#[must_use]
pub fn of_this_replica(core: &Core) -> PeerStatus {
    let identity = core.consensus.identity();
    let raft = core.consensus.status();
    let (disk_used, disk_total) = disk(core);
    PeerStatus {
        name: identity.name.clone(),
        node_id: identity.node_id,
        version: crate::VERSION.to_owned(),
        term: raft.term,
        applied: raft.applied,
        missing_blobs: u64::try_from(core.metrics.missing_blobs.get()).unwrap_or_default(),
        disk_used,
        disk_total,
    }
}

/// Brings the gauges that are read, not counted, up to date.
pub fn refresh(core: &Core) {
    let raft = core.consensus.status();
    let metrics = &core.metrics;
    metrics.raft_term.set(gauge(raft.term));
    metrics.raft_applied.set(gauge(raft.applied));
    metrics.raft_last_log.set(gauge(raft.last_log));
    let leads = raft.leader.as_deref() == Some(core.consensus.identity().name.as_str());
    metrics.raft_is_leader.set(i64::from(leads));
    metrics.raft_has_leader.set(i64::from(raft.leader.is_some()));
    let (used, total) = disk(core);
    metrics.disk_used_bytes.set(gauge(used));
    metrics.disk_total_bytes.set(gauge(total));
}

async fn ask(core: &Core, member: &Member) -> Option<PeerStatus> {
    if member.node_id == core.consensus.identity().node_id {
        return Some(of_this_replica(core));
    }
    match core.peers.status(&Peer::from(member), PEER_DEADLINE).await {
        Ok(status) => Some(status),
        Err(error) => {
            tracing::debug!(member = member.name, %error, "no status");
            None
        }
    }
}

fn member_status(member: &Member, answer: Option<&PeerStatus>, newest: u64) -> MemberStatus {
    MemberStatus {
        name: member.name.clone(),
        node_id: member.node_id,
        role: member.role.name().to_owned(),
        reachable: answer.is_some(),
        term: answer.map(|answer| answer.term),
        applied: answer.map(|answer| answer.applied),
        lag: answer.map(|answer| newest.saturating_sub(answer.applied)),
        missing_blobs: answer.map(|answer| answer.missing_blobs),
        disk_used: answer.map(|answer| answer.disk_used),
        disk_total: answer.map(|answer| answer.disk_total),
    }
}

/// Bytes in use and in all, zeros when the system does not say.
fn disk(core: &Core) -> (u64, u64) {
    core.blobs
        .space()
        .map_or((0, 0), |space| (space.total.saturating_sub(space.available), space.total))
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_raft::Role;

    use super::*;

    fn member() -> Member {
        Member {
            name: "tercet-1".into(),
            node_id: 7,
            address: "http://127.0.0.1:5011".into(),
            role: Role::Follower,
            matched: None,
        }
    }

    #[test]
    fn a_silent_member_has_nulls_where_only_it_knows() {
        let status = serde_json::to_value(member_status(&member(), None, 9)).unwrap();
        assert_eq!(
            status,
            serde_json::json!({
                "name": "tercet-1", "node_id": 7, "role": "follower", "reachable": false,
                "term": null, "applied": null, "lag": null, "missing_blobs": null,
                "disk_used": null, "disk_total": null,
            })
        );
    }

    #[test]
    fn lag_is_counted_from_the_newest_entry_anybody_knows() {
        let answer = PeerStatus {
            name: "tercet-1".into(),
            node_id: 7,
            version: "0".into(),
            term: 2,
            applied: 6,
            missing_blobs: 2,
            disk_used: 1,
            disk_total: 3,
        };
        let status = member_status(&member(), Some(&answer), 9);
        assert_eq!((status.applied, status.lag, status.missing_blobs), (Some(6), Some(3), Some(2)));
    }
}
