//! Changes of the membership that an operator asks for.
//!
//! All run on the leader, one at a time, and may be repeated. A removal first retires the id in the log and
//! then changes the membership: if this leader is lost in between, the next one finds a retired id without
//! a successor and finishes (see `chores`), and in no case can the id come back. The other way round, the
//! replica could ask for its place again in between, and get it.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use serde::{Deserialize, Serialize};
use tercet_storage::StorageError;
use thiserror::Error;

use crate::admit::{CHANGE_DEADLINE, PROMOTE_WITHIN_ENTRIES};
use crate::command::{Command, Leaving};
use crate::consensus::{Consensus, Inner, Member, Role};
use crate::error::ProposeError;
use crate::membership::{HELLO_DEADLINE, VOTERS_MAX};
use crate::network::{Invitation, JoinAnswer, JoinRequest, Target};
use crate::outcome::Outcome;
use crate::roster::{HEARING_DEADLINE, HEARING_PAUSE, VotersAfter};
use crate::type_config::{MemberKind, NodeId, ReplicaNode};

/// How long a change waits for another one to end.
const TURN_DEADLINE: Duration = Duration::from_secs(5);
/// How long a new leader may take to lead.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(10);

/// Whether an operator insists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Force {
    /// No.
    No,
    /// Yes, for this reason, which goes into the log.
    Because(String),
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// In one sentence.
    pub what: String,
    /// What the operator should know about the cluster as it is then.
    pub warnings: Vec<String>,
}

impl Changed {
    fn new(what: String) -> Self {
        Self { what, warnings: Vec::new() }
    }
}

/// A change that was not made, in the words of the operator who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeRefused {
    /// Another replica leads, or none does. Also what the removal of the leader answers once it has handed
    /// leadership over: ask the new leader.
    #[error("this replica does not lead{}", .leader.as_ref().map_or_else(String::new, |leader| format!(", {leader} does")))]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<String>,
    },
    /// Another change is under way, or is in the way; ask again.
    #[error("{0}; try again")]
    Busy(String),
    /// Nothing can be decided now.
    #[error("no majority of the voters answers: {0}")]
    NoQuorum(String),
    /// Nobody has that name.
    #[error("no member is called `{name}`; the members are {}", .known.join(", "))]
    UnknownMember {
        /// What was asked for.
        name: String,
        /// Who there is.
        known: Vec<String>,
    },
    /// The change makes no sense, whoever insists.
    #[error("{0}")]
    NotPossible(String),
    /// The member has not yet got what the others have; it will, if it runs.
    #[error(
        "`{name}` is not caught up: {}. Wait until `tercet member list` shows no lag",
        .lag.map_or_else(|| "nothing is known of its log".to_owned(), |lag| format!("{lag} entries behind"))
    )]
    NotCaughtUp {
        /// The member.
        name: String,
        /// Entries it is behind, if that is known.
        lag: Option<u64>,
    },
    /// Too few voters would be left that answer.
    #[error("TERCET-M12: would lose quorum: {why}")]
    WouldLoseQuorum {
        /// In numbers.
        why: String,
        /// Whether the change can be made all the same if the operator insists.
        force_helps: bool,
    },
    /// Not every member understands the change.
    #[error(
        "this needs feature level {needed}, the cluster is at {current}: it rises once every replica runs the new version"
    )]
    FeatureLevel {
        /// The level that is needed.
        needed: u32,
        /// The cluster's.
        current: u32,
    },
    /// It may have been done. Changes may be repeated.
    #[error("outcome unknown: {0}. Look at `tercet member list` and ask again if it was not done")]
    Unknown(String),
}

impl ChangeRefused {
    /// Whether the same question may get another answer soon.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(
            self,
            Self::NotLeader { .. }
                | Self::Busy(_)
                | Self::NoQuorum(_)
                | Self::NotCaughtUp { .. }
                | Self::Unknown(_)
        )
    }

    /// Whether [`Force::Because`] would make the change.
    #[must_use]
    pub fn force_helps(&self) -> bool {
        matches!(self, Self::WouldLoseQuorum { force_helps: true, .. })
    }
}

impl From<ProposeError> for ChangeRefused {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::FeatureLevel { needed, current } => {
                Self::FeatureLevel { needed, current }
            }
            ProposeError::Unavailable(why) | ProposeError::NoSpace(why) => Self::NoQuorum(why),
            ProposeError::Unknown(why) => Self::Unknown(why),
        }
    }
}

impl Consensus {
    /// What [`Self::remove_member`] would do now.
    ///
    /// # Errors
    /// As [`Self::remove_member`] without force; nothing is changed.
    pub async fn plan_removal(&self, name: &str) -> Result<Changed, ChangeRefused> {
        self.inner().must_lead()?;
        let removal = self.inner().removal_of(name)?;
        self.inner().judge_removal(&removal, &Force::No).await
    }

    /// Takes a member out of the cluster; its id never comes back. Its name may, with an empty disk.
    ///
    /// # Errors
    /// When this replica does not lead (or has just handed leadership over, because it is the one to
    /// remove), when nobody has the name, when too few voters would be left, or when there is no quorum.
    pub async fn remove_member(&self, name: &str, force: Force) -> Result<Changed, ChangeRefused> {
        self.inner().remove_member(name, force).await
    }

    /// Makes a learner a voter at once, if it can be one.
    ///
    /// # Errors
    /// When it cannot be one: an edge, not caught up, or five voters vote already.
    pub async fn promote(&self, name: &str) -> Result<Changed, ChangeRefused> {
        self.inner().promote(name).await
    }

    /// Marks a member as about to go, or takes the mark off. Any replica may be asked.
    ///
    /// # Errors
    /// When nobody has the name, or there is no quorum.
    pub async fn set_leaving(
        &self,
        name: &str,
        leaving: Leaving,
    ) -> Result<Changed, ChangeRefused> {
        self.inner().mark_leaving(name, leaving).await
    }

    /// Hands leadership to the voter of that name, or to the one that is furthest, and waits until it leads.
    ///
    /// # Errors
    /// When this replica does not lead, or the other one cannot.
    pub async fn transfer_to(&self, name: Option<&str>) -> Result<Changed, ChangeRefused> {
        self.inner().transfer_to(name).await
    }

    /// Lets the replica at that peer address in under that name. One that waits with an empty disk is told
    /// to join this cluster first.
    ///
    /// # Errors
    /// When nobody answers there, or somebody who must not join.
    pub async fn add_member(&self, name: &str, address: &str) -> Result<Changed, ChangeRefused> {
        self.inner().add_member(name, address).await
    }
}

/// A member to be removed.
struct Removal {
    name: String,
    /// The id that has the name in the log, if one has.
    recorded: Option<NodeId>,
    /// The ids under that name in the membership.
    ids: BTreeSet<NodeId>,
}

impl Inner {
    fn must_lead(&self) -> Result<(), ChangeRefused> {
        if self.is_leader() {
            return Ok(());
        }
        let leader = self.leader().filter(|leader| leader.node_id != self.identity.node_id);
        Err(ChangeRefused::NotLeader { leader: leader.map(|leader| leader.name) })
    }

    /// The turn to change the membership, with nothing left over of an earlier change.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, ChangeRefused> {
        self.must_lead()?;
        let busy = || ChangeRefused::Busy("another membership change is under way".to_owned());
        let turn =
            tokio::time::timeout(TURN_DEADLINE, self.changing.lock()).await.map_err(|_| busy())?;
        self.must_lead()?;
        if tokio::time::timeout(self.timing.read_deadline, self.confirm()).await.is_err() {
            return Err(ChangeRefused::NoQuorum("the leader is not confirmed".to_owned()));
        }
        self.bounded(async { self.finish_unfinished_change().await.map(drop) }).await?;
        Ok(turn)
    }

    async fn bounded<T>(
        &self,
        change: impl Future<Output = Result<T, String>>,
    ) -> Result<T, ChangeRefused> {
        match tokio::time::timeout(CHANGE_DEADLINE, change).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(why)) if self.is_leader() => Err(ChangeRefused::Unknown(why)),
            Ok(Err(why)) => Err(ChangeRefused::Unknown(format!("leadership moved on: {why}"))),
            Err(_) => Err(ChangeRefused::Unknown(
                "the change was begun and takes long; whoever leads finishes it".to_owned(),
            )),
        }
    }

    fn unknown_member(&self, name: &str) -> ChangeRefused {
        let known = self.members().into_iter().map(|member| member.name).collect();
        ChangeRefused::UnknownMember { name: name.to_owned(), known }
    }

    fn recorded_id(&self, name: &str) -> Result<Option<NodeId>, ChangeRefused> {
        let read = self.state.read(|meta| meta.member(name)).map_err(|error| error.to_string());
        let record =
            read.and_then(|record| record.map_err(|error: StorageError| error.to_string()));
        Ok(record.map_err(ChangeRefused::Busy)?.map(|record| record.node_id))
    }

    /// The member that has the name, or a predecessor of it that is still there.
    fn member(&self, name: &str) -> Result<Member, ChangeRefused> {
        let recorded = self.recorded_id(name)?;
        let mut named: Vec<Member> =
            self.members().into_iter().filter(|member| member.name == name).collect();
        named.sort_by_key(|member| Some(member.node_id) != recorded);
        named.into_iter().next().ok_or_else(|| self.unknown_member(name))
    }

    fn removal_of(&self, name: &str) -> Result<Removal, ChangeRefused> {
        let recorded = self.recorded_id(name)?;
        let ids: BTreeSet<NodeId> =
            self.nodes().into_iter().filter(|(_, n)| n.name == name).map(|(id, _)| id).collect();
        if recorded.is_none() && ids.is_empty() {
            return Err(self.unknown_member(name));
        }
        Ok(Removal { name: name.to_owned(), recorded, ids })
    }

    async fn remove_member(&self, name: &str, force: Force) -> Result<Changed, ChangeRefused> {
        let turn = self.turn().await?;
        let removal = self.removal_of(name)?;
        let retire = removal
            .recorded
            .map(|node_id| Command::RemoveMember { name: name.to_owned(), node_id });
        if let Some(command) = &retire {
            self.gate(command)?;
        }
        let changed = self.judge_removal(&removal, &force).await?;
        if removal.ids.contains(&self.identity.node_id) {
            drop(turn);
            return Err(self.step_aside_for_removal(&removal).await);
        }
        if let Force::Because(reason) = &force {
            tracing::warn!(name, reason, "removing a member by force");
        }
        if let Some(command) = retire {
            match self.propose(command).await? {
                Outcome::Done => {}
                outcome => {
                    return Err(ChangeRefused::Busy(format!(
                        "the name has just moved to another disk ({outcome})"
                    )));
                }
            }
        }
        self.bounded(self.take_out(&removal.ids)).await?;
        tracing::info!(name, ids = ?removal.ids, "removed a member");
        Ok(changed)
    }

    /// A leader that is to be removed lets another one do it.
    async fn step_aside_for_removal(&self, removal: &Removal) -> ChangeRefused {
        let stays = |heir: &Target| !removal.ids.contains(&heir.node_id);
        let Some(heir) = self.heir(stays, HEARING_DEADLINE).await else {
            return ChangeRefused::Busy(format!(
                "`{}` leads, and no other voter is ready to lead instead",
                removal.name
            ));
        };
        if self.hand_over(&heir, HANDOVER_DEADLINE).await {
            ChangeRefused::NotLeader { leader: self.leader().map(|leader| leader.name) }
        } else {
            ChangeRefused::Busy(format!("`{}` did not take leadership over", heir.name))
        }
    }

    /// Whether a member may go: what is left must be able to decide.
    async fn judge_removal(
        &self,
        removal: &Removal,
        force: &Force,
    ) -> Result<Changed, ChangeRefused> {
        let name = &removal.name;
        let before = self.voters();
        let mut changed = Changed::new(format!("removed `{name}`"));
        if before.is_disjoint(&removal.ids) {
            changed.what.push_str(&format!(", which had no vote; {} voters stay", before.len()));
            return Ok(changed);
        }
        let VotersAfter::Some(rest) = self.voters_without(&removal.ids) else {
            return Err(ChangeRefused::NotPossible(format!(
                "`{name}` is the only voter: without it there is no cluster"
            )));
        };
        changed.what.push_str(&format!(", {} of {} voters are left", rest.len(), before.len()));
        match rest.len() {
            1 => changed.warnings.push(
                "one voter is left: if its disk is lost, so are all tags and manifests".to_owned(),
            ),
            2 => changed.warnings.push(
                "two voters are left: while either is away, pushes are refused and pulls by tag may be stale"
                    .to_owned(),
            ),
            _ => {}
        }
        let ends = tokio::time::Instant::now() + HEARING_DEADLINE;
        let mut reach = self.reach_of(&rest);
        while reach.caught_up < reach.needed && tokio::time::Instant::now() < ends {
            tokio::time::sleep(HEARING_PAUSE).await;
            reach = self.reach_of(&rest);
        }
        if reach.caught_up >= reach.needed {
            return Ok(changed);
        }
        let answering = reach.reachable + self.answering(&reach.silent).await;
        let silent: Vec<&str> = reach.silent.iter().map(|target| target.name.as_str()).collect();
        if answering < reach.needed {
            return Err(ChangeRefused::WouldLoseQuorum {
                why: format!(
                    "without `{name}` {} voters are left and {} of them must agree, but {} does not answer. Bring it back, or remove it instead",
                    rest.len(),
                    reach.needed,
                    silent.join(", ")
                ),
                force_helps: false,
            });
        }
        if let Force::Because(_) = force {
            return Ok(changed);
        }
        Err(ChangeRefused::WouldLoseQuorum {
            why: format!(
                "without `{name}` {} voters are left and {} of them must agree, but only {} have nearly all of the log{}. Pushes would wait until others have caught up",
                rest.len(),
                reach.needed,
                reach.caught_up,
                if silent.is_empty() {
                    String::new()
                } else {
                    format!(" ({} has just come up)", silent.join(", "))
                }
            ),
            force_helps: true,
        })
    }

    /// How many of them say that they are there.
    async fn answering(&self, targets: &[Target]) -> usize {
        let questions =
            targets.iter().map(|target| self.transport.hello(&target.address, HELLO_DEADLINE));
        let answers = futures_util::future::join_all(questions).await;
        answers
            .into_iter()
            .zip(targets)
            .filter(|(answer, target)| {
                answer.as_ref().is_ok_and(|hello| hello.node_id == Some(target.node_id))
            })
            .count()
    }

    async fn promote(&self, name: &str) -> Result<Changed, ChangeRefused> {
        let _turn = self.turn().await?;
        let member = self.member(name)?;
        let placement = self.placement_of(member.node_id, name);
        if placement.voters.contains(&member.node_id) {
            return Ok(Changed::new(format!("`{name}` votes already")));
        }
        if member.kind == MemberKind::Edge {
            return Err(ChangeRefused::NotPossible(format!(
                "`{name}` is an edge, and edges never vote. Set node.role to \"voter\" in its configuration and restart it"
            )));
        }
        let mut voters: BTreeSet<NodeId> =
            placement.voters.difference(&placement.predecessors).copied().collect();
        if voters.len() >= VOTERS_MAX {
            return Err(ChangeRefused::NotPossible(format!(
                "{VOTERS_MAX} replicas vote already; more make writes slower and nothing safer. Remove a voter first"
            )));
        }
        if !self.is_reachable(member.node_id) {
            tokio::time::sleep(HEARING_PAUSE * 4).await;
        }
        let lag = self.lag_of(member.node_id);
        if !self.is_reachable(member.node_id) || lag.is_none_or(|lag| lag > PROMOTE_WITHIN_ENTRIES)
        {
            return Err(ChangeRefused::NotCaughtUp { name: name.to_owned(), lag });
        }
        voters.insert(member.node_id);
        let count = voters.len();
        self.bounded(self.change(ChangeMembers::ReplaceAllVoters(voters))).await?;
        Ok(Changed::new(format!("`{name}` votes now, as one of {count}")))
    }

    async fn mark_leaving(&self, name: &str, leaving: Leaving) -> Result<Changed, ChangeRefused> {
        let node_id = self.recorded_id(name)?.ok_or_else(|| self.unknown_member(name))?;
        let command = Command::SetLeaving { name: name.to_owned(), node_id, leaving };
        match self.propose(command).await? {
            Outcome::Done => Ok(Changed::new(match leaving {
                Leaving::Yes => format!("`{name}` is about to go: its blobs are copied elsewhere"),
                Leaving::No => format!("`{name}` stays"),
            })),
            _ => Err(self.unknown_member(name)),
        }
    }

    async fn transfer_to(&self, name: Option<&str>) -> Result<Changed, ChangeRefused> {
        let _turn = self.turn().await?;
        let heir = match name {
            None => self.heir(|_| true, HEARING_DEADLINE).await.ok_or_else(|| {
                ChangeRefused::NotPossible("no other voter is ready to lead".to_owned())
            })?,
            Some(name) => {
                let member = self.member(name)?;
                if member.node_id == self.identity.node_id {
                    return Ok(Changed::new(format!("`{name}` leads already")));
                }
                if member.role == Role::Learner {
                    return Err(ChangeRefused::NotPossible(format!(
                        "`{name}` does not vote, so it cannot lead"
                    )));
                }
                let named = |heir: &Target| heir.node_id == member.node_id;
                let heir = self.heir(named, HEARING_DEADLINE).await;
                heir.ok_or_else(|| self.not_ready_to_lead(&member))?
            }
        };
        if !self.hand_over(&heir, HANDOVER_DEADLINE).await {
            return Err(ChangeRefused::Busy(format!(
                "`{}` did not take leadership over",
                heir.name
            )));
        }
        match self.leader() {
            Some(leader) if leader.node_id == heir.node_id || name.is_none() => {
                Ok(Changed::new(format!("`{}` leads now", leader.name)))
            }
            leader => Err(ChangeRefused::NotLeader { leader: leader.map(|leader| leader.name) }),
        }
    }

    fn not_ready_to_lead(&self, member: &Member) -> ChangeRefused {
        let name = &member.name;
        if member.leaving == Leaving::Yes {
            ChangeRefused::NotPossible(format!("`{name}` is about to leave the cluster"))
        } else if self.is_reachable(member.node_id) {
            ChangeRefused::NotCaughtUp { name: name.clone(), lag: self.lag_of(member.node_id) }
        } else {
            ChangeRefused::NotPossible(format!("`{name}` does not answer"))
        }
    }

    async fn add_member(&self, name: &str, address: &str) -> Result<Changed, ChangeRefused> {
        self.must_lead()?;
        let ends = tokio::time::Instant::now() + CHANGE_DEADLINE;
        let mut invited = false;
        loop {
            let hello = self.transport.hello(address, HELLO_DEADLINE).await.map_err(|error| {
                ChangeRefused::NotPossible(format!(
                    "nobody answers at {address}: {error}. Start the replica first, with an empty data directory"
                ))
            })?;
            if hello.name != name {
                return Err(ChangeRefused::NotPossible(format!(
                    "the replica at {address} is called `{}`, not `{name}`",
                    hello.name
                )));
            }
            match (&hello.cluster_id, hello.node_id) {
                (Some(cluster), Some(node_id)) if *cluster == self.identity.cluster_id => {
                    return self.let_in(node_id, name, address).await;
                }
                (Some(cluster), _) => {
                    return Err(ChangeRefused::NotPossible(format!(
                        "TERCET-M02: the replica at {address} belongs to cluster {cluster}. Wipe its data directory if it is to join this one"
                    )));
                }
                (None, _) if !invited => {
                    let invitation = Invitation {
                        cluster_id: self.identity.cluster_id.clone(),
                        name: name.to_owned(),
                    };
                    self.transport.invite(address, &invitation, HELLO_DEADLINE).await.map_err(
                        |error| {
                            ChangeRefused::NotPossible(format!(
                                "the replica at {address} does not take the invitation: {error}"
                            ))
                        },
                    )?;
                    invited = true;
                }
                (None, _) if tokio::time::Instant::now() > ends => {
                    return Err(ChangeRefused::Busy(format!(
                        "`{name}` was invited and has not joined yet"
                    )));
                }
                (None, _) => tokio::time::sleep(HEARING_PAUSE).await,
            }
        }
    }

    /// Takes the first step for a replica of this cluster that may not know where to ask. From then on it
    /// hears from the leader and asks by itself, also for its role and zone.
    async fn let_in(
        &self,
        node_id: NodeId,
        name: &str,
        address: &str,
    ) -> Result<Changed, ChangeRefused> {
        let turn = self.turn().await?;
        if let Some((_, node)) = self.nodes().into_iter().find(|(id, _)| *id == node_id) {
            return Ok(Changed::new(format!("`{name}` is a member already, at {}", node.address)));
        }
        let node = ReplicaNode {
            name: name.to_owned(),
            address: address.to_owned(),
            ..ReplicaNode::default()
        };
        let answer =
            self.bounded(async { Ok(self.admit(JoinRequest { node_id, node }).await) }).await?;
        drop(turn);
        match answer {
            JoinAnswer::Member | JoinAnswer::Pending(_) => {
                if self.nodes().iter().any(|(id, _)| *id == node_id) {
                    Ok(Changed::new(format!(
                        "added `{name}` as a learner; it votes once it has caught up, if it is to vote"
                    )))
                } else if let JoinAnswer::Pending(why) = answer {
                    Err(ChangeRefused::Busy(why))
                } else {
                    Err(ChangeRefused::Busy(format!("`{name}` is not a member yet")))
                }
            }
            JoinAnswer::NotLeader(leader) => {
                Err(ChangeRefused::NotLeader { leader: leader.map(|(_, node)| node.name) })
            }
            JoinAnswer::Refused(why) | JoinAnswer::Gone(why) => {
                Err(ChangeRefused::NotPossible(why))
            }
        }
    }
}
