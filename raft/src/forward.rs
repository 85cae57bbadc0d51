//! Writes: proposed here when this replica leads, handed to the leader when it does not.

use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError as OpenraftError};
use tokio::time::Instant;

use crate::command::{Command, Proposal};
use crate::consensus::Inner;
use crate::error::ProposeError;
use crate::network::{
    ProposeAnswer, RpcKind, Target, TransportError, decode_answer, encode_message,
};
use crate::outcome::Outcome;
use crate::type_config::MemberKind;

/// Pause before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Pause between two looks at whether the voters still have room, while one waits for them.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// What became of one attempt.
pub(crate) enum Attempt {
    Applied(Outcome),
    /// Surely not done; another attempt is safe.
    NotDone(String),
    /// May have been done.
    Unknown(String),
    /// The disks are full: not done, or done once they are not.
    NoSpace(String),
}

impl Inner {
    /// Proposes a command wherever the leader is. Attempts that surely were not done are repeated
    /// until the deadline, so that a write during an election is slow and not refused; one that may
    /// have been done is reported as such.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.gate(&command)?;
        let deadline = Instant::now() + self.timing.write_deadline;
        loop {
            let attempt = match self.leader() {
                None => Attempt::NotDone("no leader is known".to_owned()),
                Some(leader) if leader.node_id == self.identity.node_id => {
                    self.propose_here(command.clone(), deadline).await
                }
                Some(leader) => self.propose_there(&leader, &command, deadline).await,
            };
            match attempt {
                Attempt::Applied(outcome) => return Ok(outcome),
                Attempt::Unknown(why) => return Err(ProposeError::Unknown(why)),
                Attempt::NoSpace(why) => return Err(ProposeError::NoSpace(why)),
                Attempt::NotDone(why) if Instant::now() + RETRY_PAUSE >= deadline => {
                    return Err(ProposeError::Unavailable(why));
                }
                Attempt::NotDone(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// The leader's answer to a forwarded command. It is never forwarded again: two replicas that
    /// each believe the other leads must not play ball.
    pub(crate) async fn answer_propose(&self, command: Command) -> ProposeAnswer {
        if self.gate(&command).is_err() {
            // The proposer has seen the level rise, so this replica is about to.
            return ProposeAnswer::NotLeader;
        }
        let deadline = Instant::now() + self.timing.write_deadline;
        match self.propose_here(command, deadline).await {
            Attempt::Applied(outcome) => ProposeAnswer::Applied(outcome),
            Attempt::NotDone(_) => ProposeAnswer::NotLeader,
            Attempt::Unknown(why) => ProposeAnswer::Unknown(why),
            Attempt::NoSpace(why) => ProposeAnswer::NoSpace(why),
        }
    }

    pub(crate) async fn propose_here(&self, command: Command, deadline: Instant) -> Attempt {
        if let Some(why) = self.still_forming(&command) {
            return Attempt::NotDone(why);
        }
        if self.is_leader()
            && let Some(why) = self.no_room_for(&command)
        {
            return Attempt::NoSpace(why);
        }
        let proposal = Proposal { at_ms: self.clock.now_ms(), command };
        let write = self.raft.client_write(proposal);
        let written = tokio::select! {
            biased;
            written = tokio::time::timeout_at(deadline, write) => written,
            // It stays in this replica's log and may be committed when they have room again.
            why = self.room_is_lost() => return Attempt::NoSpace(why),
        };
        match written {
            Ok(Ok(response)) => Attempt::Applied(response.data),
            Ok(Err(OpenraftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Attempt::NotDone(format!("this replica does not lead ({:?})", forward.reason))
            }
            Ok(Err(OpenraftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Attempt::Unknown("the leader changed while the command was under way".to_owned())
            }
            Ok(Err(error)) => Attempt::Unknown(error.to_string()),
            Err(_) => Attempt::Unknown("no majority confirmed the command in time".to_owned()),
        }
    }

    /// Returns once too many voters refuse entries for want of space, with a sentence about it.
    async fn room_is_lost(&self) -> String {
        loop {
            tokio::time::sleep(ROOM_PAUSE).await;
            if let Some(why) = self.voters_without_room() {
                return why;
            }
        }
    }

    /// While a new cluster grows from its founder, that one replica is a majority of itself. What it
    /// acknowledged then would be on one disk only, so clients wait for a real majority.
    pub(crate) fn still_forming(&self, command: &Command) -> Option<String> {
        let needed_of = |expected: usize| expected / 2 + 1;
        let voters = self.voter_count();
        if voters >= needed_of(self.initial_members.len()) {
            return None;
        }
        // An edge in the list is waited for like the others, and never votes.
        let listed = |name: &str| self.initial_members.iter().any(|member| member.name == name);
        let edges = self
            .nodes()
            .iter()
            .filter(|(_, node)| node.kind == MemberKind::Edge && listed(&node.name))
            .count();
        let needed = needed_of(self.initial_members.len().saturating_sub(edges));
        let membership =
            matches!(command, Command::AdmitMember { .. } | Command::RemoveMember { .. });
        // Where somebody was removed, the cluster is small because an operator wants it to be.
        let reduced = || matches!(self.state.read(|meta| meta.any_removed()), Ok(Ok(true)));
        (!membership && voters < needed && !reduced()).then(|| {
            format!(
                "the cluster is still forming: {voters} of at least {needed} voters have joined"
            )
        })
    }

    async fn propose_there(
        &self,
        leader: &Target,
        command: &Command,
        deadline: Instant,
    ) -> Attempt {
        let body = match encode_message(RpcKind::Propose, command) {
            Ok(body) => body,
            Err(error) => return Attempt::Unknown(error.to_string()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match self.transport.call(leader, RpcKind::Propose, body, left).await {
            Ok(answer) => match decode_answer(RpcKind::Propose, &answer) {
                Ok(ProposeAnswer::Applied(outcome)) => Attempt::Applied(outcome),
                Ok(ProposeAnswer::NotLeader) => {
                    Attempt::NotDone(format!("{} does not lead any more", leader.name))
                }
                Ok(ProposeAnswer::Unknown(why)) => Attempt::Unknown(why),
                Ok(ProposeAnswer::NoSpace(why)) => Attempt::NoSpace(why),
                Err(error) => Attempt::Unknown(error.to_string()),
            },
            Err(error @ (TransportError::NotSent(_) | TransportError::Rejected { .. })) => {
                Attempt::NotDone(format!("the leader {}: {error}", leader.name))
            }
            Err(error) => Attempt::Unknown(format!("the leader {}: {error}", leader.name)),
        }
    }
}
