//! The status of the cluster as this replica sees it.

use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tercet_raft::{Leaving, Member};

use super::disk::DiskLevel;
use crate::core::Core;
use crate::loss::Loss;
use crate::peer::{Peer, PeerStatus};
use crate::registry::{self, GcStatus};
use crate::scrub::ScrubStatus;

/// How long one replica may take to tell its part.
const PEER_DEADLINE: Duration = Duration::from_secs(1);

/// Body of `GET /status`. Fields are added, never renamed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// What the cluster may write: that of its oldest member's binary, or of the past.
    #[serde(default)]
    pub feature_level: u32,
    /// Why the cluster refuses the replica that answers, if it does.
    #[serde(default)]
    pub refused: Option<String>,
    /// Blobs that no replica has any more, as far as the replica that answers knows.
    #[serde(default)]
    pub lost: Vec<Loss>,
    /// Every member, ordered by name.
    pub members: Vec<MemberStatus>,
}

/// One member. What only it knows is null while it does not answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Blobs it should hold and does not; nothing before it has compared its disk with the catalogue.
    pub missing_blobs: Option<u64>,
    /// Bytes in use on the disk of its data directory.
    pub disk_used: Option<u64>,
    /// Size of that disk in bytes.
    pub disk_total: Option<u64>,
    /// `voter`, which may vote and keeps blobs, or `edge`.
    #[serde(default)]
    pub kind: String,
    /// Where it stands, if it says so.
    #[serde(default)]
    pub zone: Option<String>,
    /// It is about to be removed: blobs are placed elsewhere.
    #[serde(default)]
    pub leaving: bool,
    /// Version of its binary.
    #[serde(default)]
    pub version: Option<String>,
    /// The feature level of its binary.
    #[serde(default)]
    pub feature_level: Option<u32>,
    /// Why the cluster refuses it, if it does.
    #[serde(default)]
    pub refused: Option<String>,
    /// Blobs that it knows to have fewer copies than there should be.
    #[serde(default)]
    pub under_replicated: Option<u64>,
    /// How long the blob that is missing there for the longest time has been so.
    #[serde(default)]
    pub oldest_missing_seconds: Option<u64>,
    /// Index of the last entry that it had applied when it began its last complete comparison of the
    /// catalogue with its disk.
    #[serde(default)]
    pub compared_applied: Option<u64>,
    /// Blobs that no replica has any more, as far as it knows.
    #[serde(default)]
    pub unrecoverable_blobs: Option<u64>,
    /// Inodes in use on the disk of its data directory.
    #[serde(default)]
    pub inodes_used: Option<u64>,
    /// How full that disk is: `plenty`, `filling`, `repair-stopped`, `uploads-refused`, `writes-refused` or
    /// `full`.
    #[serde(default)]
    pub disk_level: Option<String>,
    /// Inodes of that disk; 0 where the file system has no fixed number of them.
    #[serde(default)]
    pub inodes_total: Option<u64>,
    /// How far the reading-again of its blobs is.
    #[serde(default)]
    pub scrub: Option<ScrubStatus>,
    /// What its garbage collection did.
    #[serde(default)]
    pub gc: Option<GcStatus>,
}

impl MemberStatus {
    /// Its role as a person reads it: an edge never votes, and one that leaves soon will not be there.
    #[must_use]
    pub fn shown_role(&self) -> String {
        let role = if self.kind == "edge" { "edge" } else { self.role.as_str() };
        if self.leaving { format!("{role}, leaving") } else { role.to_owned() }
    }
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
        feature_level: core.consensus.feature_level(),
        refused: raft.refused,
        lost: core.losses.named(),
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
    let (inodes_used, inodes_total) = inodes(core);
    let metrics = &core.metrics;
    // A snapshot, or more than the queue took: what is missing is known after the next comparison.
    let compared =
        if core.consensus.rescan_pending() { 0 } else { count(&metrics.repair_compared_applied) };
    PeerStatus {
        name: identity.name.clone(),
        node_id: identity.node_id,
        version: crate::VERSION.to_owned(),
        term: raft.term,
        applied: raft.applied,
        missing_blobs: count(&metrics.missing_blobs),
        disk_used,
        disk_total,
        feature_level: tercet_raft::own_feature_level(),
        refused: raft.refused,
        under_replicated: count(&metrics.under_replicated),
        oldest_missing_seconds: count(&metrics.oldest_missing_seconds),
        compared_applied: compared,
        unrecoverable_blobs: count(&metrics.unrecoverable_blobs),
        inodes_used,
        inodes_total,
        disk_level: DiskLevel::of_this_replica(core).name().to_owned(),
        scrub: core.scrub.status(),
        gc: registry::gc_status(core),
    }
}

/// Brings the gauges that are read, not counted, up to date.
pub fn refresh(core: &Core) {
    let raft = core.consensus.status();
    let metrics = &core.metrics;
    metrics.raft_term.set(gauge(raft.term));
    metrics.raft_applied.set(gauge(raft.applied));
    metrics.raft_last_log.set(gauge(raft.last_log));
    let fsync = core.consensus.fsync_latency().unwrap_or_default();
    metrics
        .raft_fsync_microseconds
        .set(gauge(u64::try_from(fsync.as_micros()).unwrap_or(u64::MAX)));
    let leads = raft.leader.as_deref() == Some(core.consensus.identity().name.as_str());
    metrics.raft_is_leader.set(i64::from(leads));
    metrics.feature_level.set(i64::from(core.consensus.feature_level()));
    metrics.raft_has_leader.set(i64::from(raft.leader.is_some()));
    let (used, total) = disk(core);
    metrics.disk_used_bytes.set(gauge(used));
    metrics.disk_total_bytes.set(gauge(total));
    let (used, total) = inodes(core);
    metrics.disk_inodes_used.set(gauge(used));
    metrics.disk_inodes_total.set(gauge(total));
    metrics.disk_level.set(DiskLevel::of_this_replica(core).number());
    metrics.disk_reserve_bytes.set(gauge(core.consensus.reserve_bytes()));
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
        missing_blobs: answer.and_then(PeerStatus::missing_blobs),
        disk_used: answer.map(|answer| answer.disk_used),
        disk_total: answer.map(|answer| answer.disk_total),
        kind: member.kind.name().to_owned(),
        zone: member.zone.clone(),
        leaving: member.leaving == Leaving::Yes,
        version: answer.map(|answer| answer.version.clone()),
        feature_level: answer.map(|answer| answer.feature_level),
        refused: answer.and_then(|answer| answer.refused.clone()),
        under_replicated: answer.map(|answer| answer.under_replicated),
        oldest_missing_seconds: answer.map(|answer| answer.oldest_missing_seconds),
        compared_applied: answer.map(|answer| answer.compared_applied),
        unrecoverable_blobs: answer.map(|answer| answer.unrecoverable_blobs),
        inodes_used: answer.map(|answer| answer.inodes_used),
        inodes_total: answer.map(|answer| answer.inodes_total),
        disk_level: answer.map(|answer| answer.disk_level.clone()),
        scrub: answer.map(|answer| answer.scrub.clone()),
        gc: answer.map(|answer| answer.gc.clone()),
    }
}

/// Bytes in use and in all, zeros when the system does not say.
fn disk(core: &Core) -> (u64, u64) {
    core.blobs
        .space()
        .map_or((0, 0), |space| (space.total.saturating_sub(space.available), space.total))
}

/// Inodes in use and in all, zeros when the file system has no fixed number of them.
fn inodes(core: &Core) -> (u64, u64) {
    core.blobs.space().map_or((0, 0), |space| {
        (space.inodes_total.saturating_sub(space.inodes_available), space.inodes_total)
    })
}

fn count(gauge: &prometheus::IntGauge) -> u64 {
    u64::try_from(gauge.get()).unwrap_or_default()
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
            kind: tercet_raft::MemberKind::Voter,
            zone: None,
            leaving: tercet_raft::Leaving::No,
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
                "disk_used": null, "disk_total": null, "kind": "voter", "zone": null,
                "leaving": false, "version": null, "feature_level": null, "refused": null,
                "under_replicated": null, "oldest_missing_seconds": null,
                "compared_applied": null, "unrecoverable_blobs": null, "inodes_used": null,
                "inodes_total": null, "disk_level": null, "scrub": null, "gc": null,
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
            ..PeerStatus::default()
        };
        let status = member_status(&member(), Some(&answer), 9);
        assert_eq!((status.applied, status.lag, status.missing_blobs), (Some(6), Some(3), Some(2)));
    }

    #[test]
    fn a_replica_that_has_not_looked_at_its_disk_does_not_say_that_nothing_is_missing() {
        let answer = |feature_level, compared_applied| PeerStatus {
            feature_level,
            compared_applied,
            ..PeerStatus::default()
        };
        let missing = |answer| member_status(&member(), Some(&answer), 9).missing_blobs;
        assert_eq!(missing(answer(2, 0)), None);
        assert_eq!(missing(answer(2, 5)), Some(0));
        // It has no word for it.
        assert_eq!(missing(answer(1, 0)), Some(0));
    }
}
