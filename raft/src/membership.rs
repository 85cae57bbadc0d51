//! How a replica gets its place, and learns that it has none.
//!
//! Every replica watches whether it is a member in its final role, and asks the leader while it is not.
//! What the leader does then is in `admit`. A replica that believes itself settled but hears of no leader
//! asks too: one that was removed is often not told, because nobody sends it entries any more.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::Inner;
use crate::feature::LEVEL_OF_KINDS;
use crate::network::{JoinAnswer, JoinRequest, RpcKind, Target, decode_answer, encode_message};
use crate::type_config::{MemberKind, NodeId, ReplicaNode};

/// More voters make writes slower and nothing safer; replicas beyond stay learners.
pub(crate) const VOTERS_MAX: usize = 5;
/// Pause between two looks while this replica is not yet where it belongs.
const JOINING_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks once it is, or once it was refused.
const SETTLED_PAUSE: Duration = Duration::from_secs(2);
/// A settled replica that has heard of no leader for this long asks whether it is still a member.
const FORSAKEN_AFTER: Duration = Duration::from_secs(3);
/// How long a join request may take, a little more than the change.
const JOIN_DEADLINE: Duration = Duration::from_secs(12);
/// How long one replica may take to say who it is.
pub(crate) const HELLO_DEADLINE: Duration = Duration::from_secs(2);

/// Keeps asking for this replica's place, until stopped.
pub(crate) async fn keep(inner: Arc<Inner>, stop: CancellationToken) {
    let mut heard = Instant::now();
    loop {
        let look = async {
            if inner.is_settled() {
                if inner.hears_a_leader().await {
                    heard = Instant::now();
                }
                if heard.elapsed() < FORSAKEN_AFTER {
                    return SETTLED_PAUSE;
                }
                inner.ask_for_place().await;
                return SETTLED_PAUSE;
            }
            inner.ask_for_place().await
        };
        let pause = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            pause = look => pause,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What one question came to.
enum Asked {
    /// The leader's answer.
    Answered(JoinAnswer),
    /// Nobody who leads was found.
    NoLeader,
    /// All who answered belong to this other cluster.
    OtherCluster(String),
}

impl Inner {
    /// How this replica asks to be recorded: without what the cluster cannot write yet.
    fn wanted_node(&self) -> ReplicaNode {
        if self.node.kind == MemberKind::Voter && self.cluster_level() < LEVEL_OF_KINDS {
            self.node.plain()
        } else {
            self.node.clone()
        }
    }

    /// Whether the membership names this replica as it wants to be named, as voter (or as learner when it
    /// is an edge or there are voters enough), and the log knows its name.
    fn is_settled(&self) -> bool {
        let own_id = self.identity.node_id;
        let wanted = self.wanted_node();
        let placed = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
            // A change that stopped between its two steps, or an id that held this name before, is
            // this replica's to clear away, whatever its own role.
            let joint = membership.get_joint_config().len() > 1;
            let predecessor =
                membership.nodes().any(|(id, node)| node.name == wanted.name && *id != own_id);
            let in_role = match wanted.kind {
                MemberKind::Voter => voters.contains(&own_id) || voters.len() >= VOTERS_MAX,
                MemberKind::Edge => !voters.contains(&own_id),
            };
            !joint && !predecessor && membership.get_node(&own_id) == Some(&wanted) && in_role
        };
        placed && self.admitted(own_id)
    }

    fn admitted(&self, node_id: NodeId) -> bool {
        matches!(
            self.state.read(|meta| meta.member(&self.node.name)),
            Ok(Ok(Some(member))) if member.node_id == node_id
        )
    }

    /// Whether a leader answers and this replica has what it has.
    async fn hears_a_leader(&self) -> bool {
        self.is_leader()
            || tokio::time::timeout(self.timing.read_deadline, self.confirm()).await.is_ok()
    }

    /// Asks once; returns how long to wait before the next look.
    async fn ask_for_place(&self) -> Duration {
        let request = JoinRequest { node_id: self.identity.node_id, node: self.wanted_node() };
        let asked = if self.is_leader() {
            Asked::Answered(self.answer_join(request).await)
        } else {
            self.ask_the_leader(&request).await
        };
        let answer = match asked {
            Asked::NoLeader => return JOINING_PAUSE,
            Asked::OtherCluster(cluster) => {
                let own = &self.identity.cluster_id;
                self.set_refused(format!(
                    "TERCET-M02: this replica's disk belongs to cluster {own}, and those it is configured to join belong to cluster {cluster}. Correct the list of initial members, or wipe the data directory to join that cluster as a new member"
                ));
                return SETTLED_PAUSE;
            }
            Asked::Answered(answer) => answer,
        };
        match answer {
            JoinAnswer::Member => {
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            JoinAnswer::Pending(why) => {
                let mut told = self.told_pending.lock().unwrap_or_else(PoisonError::into_inner);
                if *told != why {
                    tracing::info!("not a full member yet: {why}");
                    *told = why;
                }
            }
            JoinAnswer::NotLeader(_) => {}
            JoinAnswer::Refused(why) => {
                self.set_refused(why);
                return SETTLED_PAUSE;
            }
            JoinAnswer::Gone(why) => {
                // Its own log may still call it a voter. It would never win, and need not try.
                self.removed.store(true, Ordering::Release);
                self.set_refused(why);
                return SETTLED_PAUSE;
            }
        }
        JOINING_PAUSE
    }

    pub(crate) fn set_refused(&self, why: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref() != Some(&why) {
            tracing::error!("the cluster refuses this replica: {why}");
            *refused = Some(why);
        }
    }

    /// Asks the leader as Raft knows it, else whom the membership and the configuration name. Each of
    /// these answers as the leader, or says who is.
    async fn ask_the_leader(&self, request: &JoinRequest) -> Asked {
        if let Some(leader) = self.leader()
            && let Some(answer) = self.ask_join(&leader, request).await
            && !matches!(answer, JoinAnswer::NotLeader(_))
        {
            return Asked::Answered(answer);
        }
        let mut foreign = None;
        let mut own_cluster_answered = false;
        for address in self.known_addresses() {
            let Ok(hello) = self.transport.hello(&address, HELLO_DEADLINE).await else { continue };
            let (Some(cluster), Some(node_id)) = (hello.cluster_id, hello.node_id) else {
                continue;
            };
            if cluster != self.identity.cluster_id {
                foreign = Some(cluster);
                continue;
            }
            own_cluster_answered = true;
            let mut target = Target { node_id, name: hello.name, address };
            for _ in 0..2 {
                match self.ask_join(&target, request).await {
                    Some(JoinAnswer::NotLeader(Some((node_id, node)))) => {
                        target = Target { node_id, name: node.name, address: node.address };
                    }
                    None | Some(JoinAnswer::NotLeader(None)) => break,
                    Some(answer) => return Asked::Answered(answer),
                }
            }
        }
        match foreign {
            Some(cluster) if !own_cluster_answered => Asked::OtherCluster(cluster),
            _ => Asked::NoLeader,
        }
    }

    /// Where others of this cluster may be: the membership first, then the configuration.
    fn known_addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        let members = self.nodes().into_iter().map(|(_, node)| (node.name, node.address));
        let configured = self.initial_members.iter().cloned().map(|m| (m.name, m.address));
        for (name, address) in members.chain(configured) {
            if name != self.node.name && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// `None` when there was no answer.
    async fn ask_join(&self, asked: &Target, request: &JoinRequest) -> Option<JoinAnswer> {
        if asked.node_id == self.identity.node_id {
            return None;
        }
        let answer = async {
            let body = encode_message(RpcKind::Join, request).map_err(|error| error.to_string())?;
            let answer = self
                .transport
                .call(asked, RpcKind::Join, body, JOIN_DEADLINE)
                .await
                .map_err(|error| error.to_string())?;
            decode_answer(RpcKind::Join, &answer).map_err(|error| error.to_string())
        };
        match answer.await {
            Ok(answer) => Some(answer),
            Err(why) => {
                tracing::debug!(asked = %asked.name, "asked for a place without an answer: {why}");
                None
            }
        }
    }
}
