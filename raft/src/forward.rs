//! Writes: proposed here when this replica leads, handed to the leader when it does not.

use std::time::{Duration, Instant};

use openraft::errors::{ClientWriteError, RaftError as OpenraftError};

use crate::command::{Command, Proposal};
use crate::consensus::Inner;
use crate::error::ProposeError;
use crate::network::{
    ProposeAnswer, RpcKind, Target, TransportError, decode_answer, encode_message,
};
use crate::outcome::Outcome;

/// Pause before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What became of one attempt.
enum Attempt {
    Applied(Outcome),
    /// Surely not done; another attempt is safe.
    NotDone(String),
    /// May have been done.
    Unknown(String),
}

impl Inner {
    /// Proposes a command wherever the leader is. Attempts that surely were not done are repeated
    /// until the deadline, so that a write during an election is slow and not refused; one that may
    /// have been done is reported as such.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
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
        let deadline = Instant::now() + self.timing.write_deadline;
        match self.propose_here(command, deadline).await {
            Attempt::Applied(outcome) => ProposeAnswer::Applied(outcome),
            Attempt::NotDone(_) => ProposeAnswer::NotLeader,
            Attempt::Unknown(why) => ProposeAnswer::Unknown(why),
        }
    }

    async fn propose_here(&self, command: Command, deadline: Instant) -> Attempt {
        if let Some(why) = self.still_forming(&command) {
            return Attempt::NotDone(why);
        }
        let proposal = Proposal { at_ms: self.clock.now_ms(), command };
        let write = self.raft.client_write(proposal);
        match tokio::time::timeout_at(deadline.into(), write).await {
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

    /// While a new cluster grows from its founder, that one replica is a majority of itself. What it
    /// acknowledged then would be on one disk only, so clients wait for a real majority.
    fn still_forming(&self, command: &Command) -> Option<String> {
        let (voters, needed) = (self.voter_count(), self.initial_members.len() / 2 + 1);
        let admission = matches!(command, Command::AdmitMember { .. });
        (!admission && voters < needed).then(|| {
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
                Err(error) => Attempt::Unknown(error.to_string()),
            },
            Err(error @ (TransportError::NotSent(_) | TransportError::Rejected { .. })) => {
                Attempt::NotDone(format!("the leader {}: {error}", leader.name))
            }
            Err(error) => Attempt::Unknown(format!("the leader {}: {error}", leader.name)),
        }
    }
}
