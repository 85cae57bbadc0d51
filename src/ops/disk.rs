//! How full the disk is, in words: told in the log, on `/readyz` and in the status before anything breaks;
//! and leadership is handed to a replica that has room.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tercet_raft::{Member, Role};
use tercet_storage::{Room, Space};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::config::Limits;
use crate::core::Core;
use crate::peer::Peer;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two warnings while nothing changes.
const LOOKS_PER_WARNING: u32 = 600;
/// Looks between two attempts to hand leadership over.
const LOOKS_PER_HAND_OVER: u32 = 3;
/// How long another replica may take to say whether it has room.
const PEER_DEADLINE: Duration = Duration::from_secs(1);
/// How long handing over may take.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(3);

/// How full the disk of a replica is, by what it no longer does. Bytes and inodes count alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskLevel {
    /// There is space.
    Plenty,
    /// `limits.disk_warn_percent` is reached: somebody should look.
    Filling,
    /// `limits.disk_repair_stop_percent`: blobs that nobody pushes here are not fetched.
    RepairStopped,
    /// `limits.disk_refuse_percent`, or only `limits.disk_headroom_bytes` are left: uploads get `507`.
    UploadsRefused,
    /// Half of the headroom is used: every push gets `507` where this replica leads.
    WritesRefused,
    /// Seven eighths of it are: nothing is written to the Raft log but votes.
    Full,
}

impl DiskLevel {
    /// Judges a volume.
    #[must_use]
    pub fn of(space: &Space, room: Room, limits: &Limits) -> Self {
        let used = space.used_percent();
        match room {
            Room::Exhausted => Self::Full,
            Room::Scarce => Self::WritesRefused,
            Room::Ample
                if used >= limits.disk_refuse_percent.max(1)
                    || space.available < limits.disk_headroom_bytes =>
            {
                Self::UploadsRefused
            }
            Room::Ample if used >= limits.disk_repair_stop_percent => Self::RepairStopped,
            Room::Ample if used >= limits.disk_warn_percent => Self::Filling,
            Room::Ample => Self::Plenty,
        }
    }

    /// The level of this replica; `Plenty` if the system does not say.
    #[must_use]
    pub fn of_this_replica(core: &Core) -> Self {
        let room = core.consensus.room();
        core.blobs.space().map_or(Self::Plenty, |space| Self::of(&space, room, &core.config.limits))
    }

    /// The word in the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plenty => "plenty",
            Self::Filling => "filling",
            Self::RepairStopped => "repair-stopped",
            Self::UploadsRefused => "uploads-refused",
            Self::WritesRefused => "writes-refused",
            Self::Full => "full",
        }
    }

    /// The level behind the word; `Plenty` for none, which is what an older replica says.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let all = [
            Self::Filling,
            Self::RepairStopped,
            Self::UploadsRefused,
            Self::WritesRefused,
            Self::Full,
        ];
        all.into_iter().find(|level| level.name() == name).unwrap_or(Self::Plenty)
    }

    /// The number in the metric: 0 for plenty, 5 for full.
    #[must_use]
    pub fn number(self) -> i64 {
        self as i64
    }

    /// What a ready replica cannot do at this level.
    fn complaint(self) -> Option<&'static str> {
        match self {
            Self::Plenty | Self::Filling | Self::RepairStopped => None,
            Self::UploadsRefused => Some("the disk is nearly full: uploads here get 507"),
            Self::WritesRefused => Some(
                "the disk is nearly full: uploads here get 507, and so do all pushes while this replica leads",
            ),
            Self::Full => Some(
                "the disk is full: writes through this replica get 507, and what it serves may be stale",
            ),
        }
    }
}

/// Runs as a worker until it is cancelled.
pub async fn watch(core: Arc<Core>, health: Arc<Health>, stop: CancellationToken) {
    let mut before = DiskLevel::Plenty;
    let mut looks: u32 = 0;
    loop {
        let level = DiskLevel::of_this_replica(&core);
        health.complain(level.complaint());
        looks = if level == before { looks.wrapping_add(1) } else { 0 };
        if level != before || (level > DiskLevel::Plenty && looks.is_multiple_of(LOOKS_PER_WARNING))
        {
            tell(&core, level);
        }
        before = level;
        if level >= DiskLevel::WritesRefused && looks.is_multiple_of(LOOKS_PER_HAND_OVER) {
            hand_over(&core).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn tell(core: &Core, level: DiskLevel) {
    let Ok(space) = core.blobs.space() else {
        tracing::warn!("cannot tell how full the disk is");
        return;
    };
    let limits = &core.config.limits;
    let used_percent = space.bytes_used_percent();
    let inodes_used_percent = space.inodes_used_percent();
    if level == DiskLevel::Plenty {
        tracing::info!(
            used_percent,
            inodes_used_percent,
            "the disk of the data directory has space again"
        );
        return;
    }
    tracing::warn!(
        level = level.name(),
        used_percent,
        inodes_used_percent,
        available_bytes = space.available,
        repair_stops_at = limits.disk_repair_stop_percent,
        uploads_refused_at = limits.disk_refuse_percent,
        "the disk of the data directory is filling up"
    );
}

/// A leader without room holds up everybody's pushes, while another voter may have room.
async fn hand_over(core: &Core) {
    if core.consensus.status().role != Role::Leader {
        return;
    }
    let voters: Vec<Member> = core
        .consensus
        .members()
        .into_iter()
        .filter(|member| member.role == Role::Follower)
        .collect();
    let asked = voters.iter().map(|voter| async move {
        let status = core.peers.status(&Peer::from(voter), PEER_DEADLINE).await.ok()?;
        let level = DiskLevel::named(&status.disk_level);
        (level < DiskLevel::WritesRefused).then_some((
            level,
            std::cmp::Reverse(voter.matched),
            voter,
        ))
    });
    let roomy = join_all(asked).await;
    let heir = roomy.into_iter().flatten().min_by_key(|(level, matched, _)| (*level, *matched));
    let Some((_, _, heir)) = heir else {
        tracing::warn!("this replica leads without room on its disk, and no other voter has any");
        return;
    };
    tracing::warn!(to = %heir.name, "the disk is full: handing leadership to a replica with room");
    core.consensus.hand_over_to(&heir.name, HAND_OVER_DEADLINE).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn space(available: u64) -> Space {
        Space { total: 100 * GIB, available, inodes_total: 1000, inodes_available: 900 }
    }

    #[test]
    fn levels_follow_the_marks() {
        let limits = Limits::default();
        let of = |space: &Space, room| DiskLevel::of(space, room, &limits);
        assert_eq!(of(&space(20 * GIB), Room::Ample), DiskLevel::Plenty);
        assert_eq!(of(&space(15 * GIB), Room::Ample), DiskLevel::Filling);
        assert_eq!(of(&space(10 * GIB), Room::Ample), DiskLevel::RepairStopped);
        assert_eq!(of(&space(5 * GIB), Room::Ample), DiskLevel::UploadsRefused);
        assert_eq!(of(&space(GIB / 8), Room::Scarce), DiskLevel::WritesRefused);
        assert_eq!(of(&space(0), Room::Exhausted), DiskLevel::Full);
        let few_inodes = Space { inodes_available: 100, ..space(90 * GIB) };
        assert_eq!(of(&few_inodes, Room::Ample), DiskLevel::RepairStopped);
        // A small volume: the headroom counts before the percentage does.
        let small = Space { total: GIB, available: GIB / 5, ..space(0) };
        assert_eq!(of(&small, Room::Ample), DiskLevel::UploadsRefused);
    }

    #[test]
    fn every_level_is_found_by_its_name() {
        for level in [
            DiskLevel::Plenty,
            DiskLevel::Filling,
            DiskLevel::RepairStopped,
            DiskLevel::UploadsRefused,
            DiskLevel::WritesRefused,
            DiskLevel::Full,
        ] {
            assert_eq!(DiskLevel::named(level.name()), level);
        }
        assert_eq!(DiskLevel::named(""), DiskLevel::Plenty);
    }
}
