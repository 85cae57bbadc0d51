//! The membership as the leader sees it: who is there, who answers, who is left without whom; and the
//! changes to it that are made of one openraft call.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Instant as _};
use tercet_storage::StorageError;
use tokio::time::Instant;

use crate::consensus::Inner;
use crate::network::Target;
use crate::type_config::{MemberKind, NodeId, ReplicaNode};

/// A member that has confirmed nothing for so many heartbeats does not answer.
const SILENT_AFTER_HEARTBEATS: u32 = 10;
/// Between two looks at who has been heard of.
pub(crate) const HEARING_PAUSE: Duration = Duration::from_millis(50);
/// How long a fresh leader may take to hear from everybody.
pub(crate) const HEARING_DEADLINE: Duration = Duration::from_secs(2);
/// A voter further behind than this cannot help to commit soon.
const FAR_BEHIND_ENTRIES: u64 = 1_000;

/// What the leader needs to know to place one replica.
pub(crate) struct Placement {
    pub(crate) current: Option<ReplicaNode>,
    pub(crate) voters: BTreeSet<NodeId>,
    /// Other ids under the same name.
    pub(crate) predecessors: BTreeSet<NodeId>,
    /// Entries the replica is behind; the greatest number while nothing is known.
    pub(crate) lag: u64,
}

/// The voters that are left without some ids.
pub(crate) enum VotersAfter {
    None,
    Some(BTreeSet<NodeId>),
}

/// How many of some voters could decide something now.
pub(crate) struct Reach {
    /// A majority of them.
    pub(crate) needed: usize,
    /// Those that have confirmed the leader lately, itself included.
    pub(crate) reachable: usize,
    /// Those of them whose logs are nearly complete.
    pub(crate) caught_up: usize,
    /// The others.
    pub(crate) silent: Vec<Target>,
}

impl Inner {
    /// Everybody in the membership.
    pub(crate) fn nodes(&self) -> Vec<(NodeId, ReplicaNode)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.map(|(id, node)| (*id, node.clone())).collect()
    }

    pub(crate) fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    pub(crate) fn voters_without(&self, ids: &BTreeSet<NodeId>) -> VotersAfter {
        let rest: BTreeSet<NodeId> = self.voters().difference(ids).copied().collect();
        if rest.is_empty() { VotersAfter::None } else { VotersAfter::Some(rest) }
    }

    /// Entries a member is behind this leader; `None` while nothing is known.
    pub(crate) fn lag_of(&self, node_id: NodeId) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        if node_id == self.identity.node_id {
            return Some(0);
        }
        let matched = metrics.replication.as_ref()?.get(&node_id)?.as_ref()?.index;
        Some(last.saturating_sub(matched))
    }

    pub(crate) fn placement_of(&self, node_id: NodeId, name: &str) -> Placement {
        let nodes = self.nodes();
        Placement {
            current: nodes.iter().find(|(id, _)| *id == node_id).map(|(_, node)| node.clone()),
            voters: self.voters(),
            predecessors: nodes
                .iter()
                .filter(|(id, node)| node.name == name && *id != node_id)
                .map(|(id, _)| *id)
                .collect(),
            lag: self.lag_of(node_id).unwrap_or(u64::MAX),
        }
    }

    /// Whether a member has confirmed this leader lately.
    pub(crate) fn is_reachable(&self, node_id: NodeId) -> bool {
        if node_id == self.identity.node_id {
            return true;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let confirmed = metrics.heartbeat.as_ref().and_then(|confirmed| confirmed.get(&node_id));
        let Some(Some(confirmed)) = confirmed else { return false };
        let age = confirmed.elapsed();
        age < self.timing.heartbeat * SILENT_AFTER_HEARTBEATS
    }

    pub(crate) fn reach_of(&self, voters: &BTreeSet<NodeId>) -> Reach {
        let nodes = self.nodes();
        let (answering, silent): (Vec<NodeId>, Vec<NodeId>) =
            voters.iter().partition(|id| self.is_reachable(**id));
        let caught_up = answering
            .iter()
            .filter(|id| self.lag_of(**id).is_some_and(|lag| lag <= FAR_BEHIND_ENTRIES))
            .count();
        Reach {
            needed: voters.len() / 2 + 1,
            reachable: answering.len(),
            caught_up,
            silent: nodes
                .into_iter()
                .filter(|(id, _)| silent.contains(id))
                .map(|(node_id, node)| Target { node_id, name: node.name, address: node.address })
                .collect(),
        }
    }

    /// The voters that a change was on its way to, if it stopped between its two steps.
    pub(crate) fn unfinished_change(&self) -> Option<BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.membership().get_joint_config().as_slice() {
            [_, .., goal] => Some(goal.clone()),
            _ => None,
        }
    }

    /// Answers whether there was one.
    pub(crate) async fn finish_unfinished_change(&self) -> Result<bool, String> {
        let Some(voters) = self.unfinished_change() else { return Ok(false) };
        tracing::info!(?voters, "finishing a membership change that was interrupted");
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await?;
        Ok(true)
    }

    /// Ids in the membership that are retired and whose name nobody has: an operator has removed the
    /// member. (Where somebody has it, that one takes its predecessor's place.)
    pub(crate) fn retired_without_successor(&self) -> BTreeSet<NodeId> {
        let nodes = self.nodes();
        let read = self.state.read(|meta| {
            let mut retired = BTreeSet::new();
            for (node_id, node) in &nodes {
                if meta.retired(*node_id)? && meta.member(&node.name)?.is_none() {
                    retired.insert(*node_id);
                }
            }
            Ok::<_, StorageError>(retired)
        });
        read.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Takes ids out of the membership, those that vote in one change. The caller has made sure that
    /// voters are left.
    pub(crate) async fn take_out(&self, ids: &BTreeSet<NodeId>) -> Result<(), String> {
        let voters = self.voters();
        if voters.iter().any(|id| ids.contains(id)) {
            let rest = voters.difference(ids).copied().collect();
            self.change(ChangeMembers::ReplaceAllVoters(rest)).await?;
        }
        let learners: BTreeSet<NodeId> =
            self.nodes().into_iter().map(|(id, _)| id).filter(|id| ids.contains(id)).collect();
        if learners.is_empty() {
            return Ok(());
        }
        self.change(ChangeMembers::RemoveNodes(learners)).await
    }

    pub(crate) async fn change(
        &self,
        change: ChangeMembers<NodeId, ReplicaNode>,
    ) -> Result<(), String> {
        // Not retained: a retired id must not stay on as a learner.
        self.raft.change_membership(change, false).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Who could lead instead of this leader: voters that answer, have nearly everything and stay. The one
    /// that is furthest first.
    pub(crate) fn heirs(&self) -> Vec<Target> {
        let voters = self.voters();
        let mut heirs: Vec<(u64, Target)> = self
            .members()
            .into_iter()
            .filter(|member| {
                member.node_id != self.identity.node_id
                    && voters.contains(&member.node_id)
                    && member.kind == MemberKind::Voter
                    && member.leaving == crate::command::Leaving::No
                    && self.is_reachable(member.node_id)
            })
            .filter_map(|member| {
                let lag = self.lag_of(member.node_id).filter(|lag| *lag <= FAR_BEHIND_ENTRIES)?;
                Some((lag, member.target()))
            })
            .collect();
        heirs.sort_by_key(|(lag, _)| *lag);
        heirs.into_iter().map(|(_, heir)| heir).collect()
    }

    /// The best heir that `wanted` takes. A leader that has just been elected has not heard from the others
    /// yet, so this waits for one, at most `patience`.
    pub(crate) async fn heir(
        &self,
        wanted: impl Fn(&Target) -> bool,
        patience: Duration,
    ) -> Option<Target> {
        let end = Instant::now() + patience;
        loop {
            if let Some(heir) = self.heirs().into_iter().find(&wanted) {
                return Some(heir);
            }
            if Instant::now() >= end || !self.is_leader() {
                return None;
            }
            tokio::time::sleep(HEARING_PAUSE).await;
        }
    }

    /// Asks a voter to lead and waits until it does, or anybody but this replica; answers whether so.
    pub(crate) async fn hand_over(&self, heir: &Target, deadline: Duration) -> bool {
        tracing::info!(to = %heir.name, "handing leadership over");
        if let Err(error) = self.raft.trigger().transfer_leader(heir.node_id).await {
            tracing::warn!(%error, "cannot hand leadership over");
            return false;
        }
        let end = Instant::now() + deadline;
        let mut metrics = self.raft.metrics();
        loop {
            let leader = metrics.borrow_and_update().current_leader;
            if leader.is_some_and(|leader| leader != self.identity.node_id) {
                return true;
            }
            match tokio::time::timeout_at(end, metrics.changed()).await {
                Ok(Ok(())) => {}
                // Raft has stopped: nobody is left to hand over.
                Ok(Err(_)) => return false,
                Err(_) => {
                    tracing::warn!("nobody took leadership over in time");
                    return false;
                }
            }
        }
    }
}
