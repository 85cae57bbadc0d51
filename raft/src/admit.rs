//! How the leader lets a replica in.
//!
//! It registers the replica under its name in the log (retiring the id that held the name before), adds it
//! as a learner, and when it has caught up makes it a voter; the retired id leaves in the same membership
//! change. An edge stays a learner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use tercet_storage::StorageError;

use crate::command::Command;
use crate::consensus::Inner;
use crate::feature::LEVEL_OF_KINDS;
use crate::membership::{HELLO_DEADLINE, VOTERS_MAX};
use crate::network::{JoinAnswer, JoinRequest};
use crate::outcome::{Outcome, removed_reason, retired_reason};
use crate::records::to_io;
use crate::roster::VotersAfter;
use crate::type_config::{MemberKind, NodeId, ReplicaNode};

/// A learner this close to the leader's log is made a voter.
pub(crate) const PROMOTE_WITHIN_ENTRIES: u64 = 64;
/// How long one membership change may take before the asker is told to ask again.
pub(crate) const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// What the log says about an id and the name it comes with.
struct Recorded {
    /// The id that has the name.
    holder: Option<NodeId>,
    retired: bool,
    removed: bool,
}

impl Inner {
    /// The leader's side of a join.
    pub(crate) async fn answer_join(&self, request: JoinRequest) -> JoinAnswer {
        if !self.is_leader() {
            let leader = self.leader().filter(|leader| leader.node_id != self.identity.node_id);
            return JoinAnswer::NotLeader(leader.map(|leader| {
                let node = ReplicaNode {
                    name: leader.name,
                    address: leader.address,
                    ..ReplicaNode::default()
                };
                (leader.node_id, node)
            }));
        }
        let Ok(_changing) = self.changing.try_lock() else {
            return JoinAnswer::Pending("another membership change is under way".to_owned());
        };
        match tokio::time::timeout(CHANGE_DEADLINE, self.admit(request)).await {
            Ok(answer) => answer,
            Err(_) => JoinAnswer::Pending("the membership change takes long".to_owned()),
        }
    }

    /// One step on the way in. The caller holds the lock on changes.
    pub(crate) async fn admit(&self, request: JoinRequest) -> JoinAnswer {
        let JoinRequest { node_id, node } = request;
        // A new leader may not have applied yet that this very id was retired.
        if tokio::time::timeout(self.timing.read_deadline, self.confirm()).await.is_err() {
            return JoinAnswer::Pending("the leader has no quorum yet".to_owned());
        }
        let recorded = match self.recorded(node_id, &node.name) {
            Ok(recorded) => recorded,
            Err(error) => return JoinAnswer::Pending(error.to_string()),
        };
        // The command refuses a retired id too; asking first spares the log an entry a time.
        if recorded.retired {
            return self.refuse_retired(node_id, recorded.removed);
        }
        let node = match self.look_at_joiner(node_id, node, recorded.holder).await {
            Ok(node) => node,
            Err(answer) => return answer,
        };
        if recorded.holder != Some(node_id) {
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

    fn recorded(&self, node_id: NodeId, name: &str) -> std::io::Result<Recorded> {
        self.state.read(|meta| {
            let read = || {
                Ok::<_, StorageError>(Recorded {
                    holder: meta.member(name)?.map(|member| member.node_id),
                    retired: meta.retired(node_id)?,
                    removed: meta.removed(node_id)?,
                })
            };
            read().map_err(to_io)
        })?
    }

    fn refuse_retired(&self, node_id: NodeId, removed: bool) -> JoinAnswer {
        let why = if removed { removed_reason(node_id) } else { retired_reason(node_id) };
        // As long as the membership counts on it, its log may be the one that has to win an election.
        if self.nodes().iter().any(|(id, _)| *id == node_id) || self.unfinished_change().is_some() {
            JoinAnswer::Refused(why)
        } else {
            JoinAnswer::Gone(why)
        }
    }

    /// Whether the replica is what it says, and how it is to be recorded.
    async fn look_at_joiner(
        &self,
        node_id: NodeId,
        node: ReplicaNode,
        holder: Option<NodeId>,
    ) -> Result<ReplicaNode, JoinAnswer> {
        let level = self.cluster_level();
        if node_id == self.identity.node_id {
            return Ok(if level < LEVEL_OF_KINDS { node.plain() } else { node });
        }
        let hello = self.transport.hello(&node.address, HELLO_DEADLINE).await.map_err(|error| {
            JoinAnswer::Pending(format!("nobody answers at {}: {error}", node.address))
        })?;
        if hello.node_id != Some(node_id) {
            return Err(JoinAnswer::Pending(format!(
                "at {} answers another replica: {}",
                node.address, hello.name
            )));
        }
        if hello.feature_level < level {
            let record = self.state.read(|meta| meta.feature_level());
            let version = record.ok().and_then(Result::ok).flatten().map(|record| record.version);
            return Err(JoinAnswer::Refused(format!(
                "TERCET-M03: the cluster is at feature level {level}, and this replica's version of Tercet knows {} only. Install version {} or a later one on it",
                hello.feature_level,
                version.as_deref().unwrap_or("of the other replicas"),
            )));
        }
        if let Some(holder) = holder.filter(|holder| *holder != node_id) {
            self.refuse_living_namesake(holder, &node).await?;
        }
        if level >= LEVEL_OF_KINDS {
            return Ok(node);
        }
        match node.kind {
            MemberKind::Voter => Ok(node.plain()),
            MemberKind::Edge => Err(JoinAnswer::Pending(format!(
                "edge replicas join once every member runs a version with feature level {LEVEL_OF_KINDS}; the cluster is at {level}"
            ))),
        }
    }

    /// A new disk takes its name over from an old one. Two replicas that run under one name are a mistake,
    /// and would replace each other for ever.
    async fn refuse_living_namesake(
        &self,
        holder: NodeId,
        node: &ReplicaNode,
    ) -> Result<(), JoinAnswer> {
        let address =
            self.nodes().into_iter().find(|(id, _)| *id == holder).map(|(_, n)| n.address);
        let Some(address) = address else { return Ok(()) };
        let lives = holder == self.identity.node_id
            || self
                .transport
                .hello(&address, HELLO_DEADLINE)
                .await
                .is_ok_and(|hello| hello.node_id == Some(holder));
        if !lives {
            return Ok(());
        }
        Err(JoinAnswer::Refused(format!(
            "TERCET-M06: a replica named `{}` runs already, at {address}. Give this one a name of its own, or stop that one first if this one is to replace it",
            node.name
        )))
    }

    /// Moves a registered replica one step towards its final role.
    async fn place(&self, node_id: NodeId, node: ReplicaNode) -> Result<JoinAnswer, String> {
        if self.finish_unfinished_change().await? {
            return Ok(JoinAnswer::Pending("finished an earlier change".to_owned()));
        }
        let view = self.placement_of(node_id, &node.name);
        let votes = view.voters.contains(&node_id);
        if votes && node.kind == MemberKind::Edge {
            return Ok(JoinAnswer::Refused(format!(
                "TERCET-M05: `{}` is a voter and its disk cannot become that of an edge. Remove it (`tercet member remove {}`), wipe its data directory and start it again as an edge, or set node.role back to voter",
                node.name, node.name
            )));
        }
        let kind = node.kind;
        match &view.current {
            None => {
                tracing::info!(name = %node.name, node_id, kind = kind.name(), "adding a learner");
                self.raft
                    .add_learner(node_id, node, false)
                    .await
                    .map_err(|error| error.to_string())?;
                return Ok(JoinAnswer::Pending("added as a learner".to_owned()));
            }
            Some(current) if *current != node => {
                tracing::info!(
                    name = %node.name, address = %node.address, kind = kind.name(), zone = ?node.zone,
                    "a member moved or changed"
                );
                let moved = ChangeMembers::SetNodes(BTreeMap::from([(node_id, node)]));
                self.change(moved).await?;
                return Ok(JoinAnswer::Pending("address, role or zone changed".to_owned()));
            }
            Some(_) => {}
        }
        if votes {
            self.take_out(&view.predecessors).await?;
            return Ok(JoinAnswer::Member);
        }
        let mut voters: BTreeSet<NodeId> =
            view.voters.difference(&view.predecessors).copied().collect();
        if kind == MemberKind::Edge || voters.len() >= VOTERS_MAX {
            self.remove_predecessors(&view.predecessors).await?;
            return Ok(JoinAnswer::Member);
        }
        if view.lag > PROMOTE_WITHIN_ENTRIES {
            return Ok(JoinAnswer::Pending("catching up with the log".to_owned()));
        }
        voters.insert(node_id);
        tracing::info!(name = %node.name, node_id, replaces = ?view.predecessors, "promoting to voter");
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await?;
        Ok(JoinAnswer::Member)
    }

    /// Takes out ids that held the name before, when no voter takes their place.
    async fn remove_predecessors(&self, predecessors: &BTreeSet<NodeId>) -> Result<(), String> {
        let VotersAfter::Some(rest) = self.voters_without(predecessors) else {
            return Err("the disk that this one replaces is the only one that votes".to_owned());
        };
        let reach = self.reach_of(&rest);
        if reach.reachable < reach.needed {
            return Err(format!(
                "the disk that this one replaces leaves once a majority of the others is reachable: {} of {}",
                reach.reachable, reach.needed
            ));
        }
        self.take_out(predecessors).await
    }
}
