//! How replicas get in.
//!
//! Every replica watches whether it is a member in its final role, and asks the leader while it is
//! not. The leader admits it under its name in the log (retiring the id that held the name before),
//! adds it as a learner, and when it has caught up makes it a voter; the retired id leaves in the same
//! membership change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tercet_storage::StorageError;
use tokio_util::sync::CancellationToken;

use crate::command::Command;
use crate::consensus::Inner;
use crate::network::{JoinAnswer, JoinRequest, RpcKind, Target, decode_answer, encode_message};
use crate::outcome::{Outcome, retired_reason};
use crate::records::to_io;
use crate::type_config::{NodeId, ReplicaNode};

/// More voters make writes slower and nothing safer; replicas beyond stay learners.
const VOTERS_MAX: usize = 5;
/// A learner this close to the leader's log is made a voter.
const PROMOTE_WITHIN_ENTRIES: u64 = 64;
/// Pause between two looks while this replica is not yet where it belongs.
const JOINING_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks once it is.
const SETTLED_PAUSE: Duration = Duration::from_secs(2);
/// How long one membership change may take before the asker is told to ask again.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a join request may take, a little more than the change.
const JOIN_DEADLINE: Duration = Duration::from_secs(12);
const HELLO_DEADLINE: Duration = Duration::from_secs(2);

/// Keeps asking for this replica's place, until stopped.
pub(crate) async fn keep(inner: Arc<Inner>, stop: CancellationToken) {
    loop {
        let pause = if inner.is_settled() {
            SETTLED_PAUSE
        } else {
            tokio::select! {
                () = stop.cancelled() => return,
                pause = inner.ask_for_place() => pause,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Inner {
    /// Whether the membership names this replica, at its address, as voter (or as learner when there
    /// are voters enough), and the log knows its name.
    fn is_settled(&self) -> bool {
        let own_id = self.identity.node_id;
        let placed = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
            // A change that stopped between its two steps, or an id that held this name before, is
            // this replica's to clear away, whatever its own role.
            let joint = membership.get_joint_config().len() > 1;
            let predecessor =
                membership.nodes().any(|(id, node)| node.name == self.node.name && *id != own_id);
            !joint
                && !predecessor
                && membership.get_node(&own_id) == Some(&self.node)
                && (voters.contains(&own_id) || voters.len() >= VOTERS_MAX)
        };
        placed && self.admitted(own_id)
    }

    fn admitted(&self, node_id: NodeId) -> bool {
        matches!(
            self.state.read(|meta| meta.member(&self.node.name)),
            Ok(Ok(Some(member))) if member.node_id == node_id
        )
    }

    /// Asks once; returns how long to wait before the next look.
    async fn ask_for_place(&self) -> Duration {
        let request = JoinRequest { node_id: self.identity.node_id, node: self.node.clone() };
        let answer = if self.is_leader() {
            self.answer_join(request).await
        } else {
            match self.find_leader().await {
                Some(leader) => self.ask_join(&leader, &request).await,
                None => return JOINING_PAUSE,
            }
        };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            JoinAnswer::Member => *refused = None,
            JoinAnswer::Pending(why) => tracing::debug!("not a full member yet: {why}"),
            JoinAnswer::NotLeader(_) => {}
            JoinAnswer::Refused(why) => {
                if refused.as_ref() != Some(&why) {
                    tracing::error!("the cluster refuses this replica: {why}");
                    *refused = Some(why);
                }
                return SETTLED_PAUSE;
            }
        }
        JOINING_PAUSE
    }

    async fn ask_join(&self, asked: &Target, request: &JoinRequest) -> JoinAnswer {
        let pending = |error: &dyn std::fmt::Display| JoinAnswer::Pending(error.to_string());
        let body = match encode_message(RpcKind::Join, request) {
            Ok(body) => body,
            Err(error) => return pending(&error),
        };
        match self.transport.call(asked, RpcKind::Join, body, JOIN_DEADLINE).await {
            Ok(answer) => {
                decode_answer(RpcKind::Join, &answer).unwrap_or_else(|error| pending(&error))
            }
            Err(error) => pending(&error),
        }
    }

    /// The leader: as Raft knows it, else by asking the configured members.
    async fn find_leader(&self) -> Option<Target> {
        if let Some(leader) = self.leader() {
            return Some(leader);
        }
        for member in &self.initial_members {
            if member.name == self.node.name {
                continue;
            }
            let hello = self.transport.hello(&member.address, HELLO_DEADLINE).await;
            let Ok(hello) = hello else { continue };
            if hello.cluster_id.as_ref() != Some(&self.identity.cluster_id) {
                continue;
            }
            let Some(node_id) = hello.node_id else { continue };
            let asked =
                Target { node_id, name: member.name.clone(), address: member.address.clone() };
            // A question without effect on anyone but the leader, who answers it as a real one.
            let request = JoinRequest { node_id: self.identity.node_id, node: self.node.clone() };
            match self.ask_join(&asked, &request).await {
                JoinAnswer::NotLeader(Some((node_id, node))) => {
                    return Some(Target { node_id, name: node.name, address: node.address });
                }
                JoinAnswer::NotLeader(None) => {}
                JoinAnswer::Member | JoinAnswer::Pending(_) | JoinAnswer::Refused(_) => {
                    return Some(asked);
                }
            }
        }
        None
    }

    /// The leader's side of a join.
    pub(crate) async fn answer_join(&self, request: JoinRequest) -> JoinAnswer {
        if !self.is_leader() {
            let leader = self.leader().map(|leader| {
                (leader.node_id, ReplicaNode { name: leader.name, address: leader.address })
            });
            return JoinAnswer::NotLeader(leader.filter(|(id, _)| *id != self.identity.node_id));
        }
        let Ok(_changing) = self.changing.try_lock() else {
            return JoinAnswer::Pending("another membership change is under way".to_owned());
        };
        match tokio::time::timeout(CHANGE_DEADLINE, self.admit(request)).await {
            Ok(answer) => answer,
            Err(_) => JoinAnswer::Pending("the membership change takes long".to_owned()),
        }
    }

    async fn admit(&self, request: JoinRequest) -> JoinAnswer {
        let JoinRequest { node_id, node } = request;
        // A new leader may not have applied yet that this very id was retired.
        if tokio::time::timeout(self.timing.read_deadline, self.confirm()).await.is_err() {
            return JoinAnswer::Pending("the leader has no quorum yet".to_owned());
        }
        let recorded =
            self.state.read(|meta| Ok((meta.member(&node.name)?, meta.retired(node_id)?)));
        let (member, retired) =
            match recorded.and_then(|read: Result<_, StorageError>| read.map_err(to_io)) {
                Ok(recorded) => recorded,
                Err(error) => return JoinAnswer::Pending(error.to_string()),
            };
        // The command refuses a retired id too; asking first spares the log an entry a time.
        if retired {
            return JoinAnswer::Refused(retired_reason(node_id));
        }
        let admitted = member.is_some_and(|member| member.node_id == node_id);
        if !admitted {
            let command = Command::AdmitMember { name: node.name.clone(), node_id };
            match self.propose(command).await {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Refused(why)) => return JoinAnswer::Refused(why),
                Ok(other) => return JoinAnswer::Pending(format!("unexpected outcome {other}")),
                Err(error) => return JoinAnswer::Pending(error.to_string()),
            }
        }
        match self.place(node_id, node).await {
            Ok(answer) => answer,
            Err(why) => JoinAnswer::Pending(why),
        }
    }

    /// Moves a registered replica one step towards its final role.
    async fn place(&self, node_id: NodeId, node: ReplicaNode) -> Result<JoinAnswer, String> {
        let view = self.membership_view(node_id, &node.name);
        if let Some(voters) = &view.unfinished {
            tracing::info!(?voters, "finishing a membership change that was interrupted");
            self.change(ChangeMembers::ReplaceAllVoters(voters.clone())).await?;
            return Ok(JoinAnswer::Pending("finished an earlier change".to_owned()));
        }
        match &view.current {
            None => {
                tracing::info!(name = %node.name, node_id, "adding a learner");
                self.raft
                    .add_learner(node_id, node, false)
                    .await
                    .map_err(|error| error.to_string())?;
                return Ok(JoinAnswer::Pending("added as a learner".to_owned()));
            }
            Some(current) if *current != node => {
                tracing::info!(name = %node.name, address = %node.address, "a member moved");
                let moved = ChangeMembers::SetNodes(BTreeMap::from([(node_id, node)]));
                self.change(moved).await?;
                return Ok(JoinAnswer::Pending("address changed".to_owned()));
            }
            Some(_) => {}
        }
        if view.voters.contains(&node_id) {
            self.remove_predecessors(&view).await?;
            return Ok(JoinAnswer::Member);
        }
        let mut voters: BTreeSet<NodeId> =
            view.voters.difference(&view.predecessors).copied().collect();
        if voters.len() >= VOTERS_MAX {
            self.remove_predecessors(&view).await?;
            return Ok(JoinAnswer::Member);
        }
        if view.lag > PROMOTE_WITHIN_ENTRIES {
            return Ok(JoinAnswer::Pending(format!("{} entries behind", view.lag)));
        }
        voters.insert(node_id);
        tracing::info!(name = %node.name, node_id, replaces = ?view.predecessors, "promoting to voter");
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await?;
        Ok(JoinAnswer::Member)
    }

    /// Takes out ids that held the name before and are still learners or voters.
    async fn remove_predecessors(&self, view: &MembershipView) -> Result<(), String> {
        if view.predecessors.is_empty() {
            return Ok(());
        }
        let voters: BTreeSet<NodeId> =
            view.voters.difference(&view.predecessors).copied().collect();
        if voters.len() < view.voters.len() {
            return self.change(ChangeMembers::ReplaceAllVoters(voters)).await;
        }
        self.change(ChangeMembers::RemoveNodes(view.predecessors.clone())).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, ReplicaNode>) -> Result<(), String> {
        // Not retained: a retired id must not stay on as a learner.
        self.raft.change_membership(change, false).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    fn membership_view(&self, node_id: NodeId, name: &str) -> MembershipView {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|replication| replication.get(&node_id))
            .and_then(|matched| matched.as_ref().map(|log_id| log_id.index));
        let last = metrics.last_log_index.unwrap_or(0);
        MembershipView {
            current: membership.get_node(&node_id).cloned(),
            voters: membership.voter_ids().collect(),
            predecessors: membership
                .nodes()
                .filter(|(id, node)| node.name == name && **id != node_id)
                .map(|(id, _)| *id)
                .collect(),
            unfinished: match membership.get_joint_config().as_slice() {
                [_, .., goal] => Some(goal.clone()),
                _ => None,
            },
            lag: matched.map_or(u64::MAX, |matched| last.saturating_sub(matched)),
        }
    }
}

/// What the leader needs to know to place one replica.
struct MembershipView {
    current: Option<ReplicaNode>,
    voters: BTreeSet<NodeId>,
    /// The voters that a change was on its way to, if it stopped between its two steps.
    unfinished: Option<BTreeSet<NodeId>>,
    /// Other ids under the same name.
    predecessors: BTreeSet<NodeId>,
    /// Entries the replica is behind; the greatest number while nothing is known.
    lag: u64,
}
