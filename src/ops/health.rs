//! Whether this replica lives, and whether clients should be sent to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tercet_raft::RaftStatus;

/// A replica that comes back while the majority is away becomes ready after this time without a
/// leader: it still serves pulls, and nobody else may be left to do so.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// What the process as a whole is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Starting(String),
    Serving(Instant),
    Draining,
}

/// The state behind `/readyz`.
#[derive(Debug)]
pub struct Health {
    phase: Mutex<Phase>,
    /// A leader was there once since the start. From then on its absence is no reason to send
    /// clients away: pulls outlive the quorum.
    had_leader: AtomicBool,
    /// What the configuration makes of this replica and nobody may have meant.
    remark: OnceLock<String>,
    /// What it cannot do at the moment, beside what Raft says.
    complaint: Mutex<Option<&'static str>>,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether clients should come.
    pub ready: bool,
    /// Why, or why not; also what a ready replica cannot do at the moment.
    pub reason: String,
}

impl Health {
    /// A replica that begins to start.
    #[must_use]
    pub fn starting() -> Self {
        Self {
            phase: Mutex::new(Phase::Starting("opening the data directory".to_owned())),
            had_leader: AtomicBool::new(false),
            remark: OnceLock::new(),
            complaint: Mutex::new(None),
        }
    }

    /// Adds a sentence to what a ready replica says, once and for good.
    pub fn remark(&self, text: String) {
        let _ = self.remark.set(text);
    }

    /// Sets the sentence about what a ready replica cannot do now, or takes it back.
    pub fn complain(&self, complaint: Option<&'static str>) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = complaint;
    }

    /// Says what the start is waiting for.
    pub fn progress(&self, what: &str) {
        let mut phase = self.lock();
        if let Phase::Starting(reason) = &mut *phase {
            what.clone_into(reason);
        }
    }

    /// The start is complete.
    pub fn serving(&self) {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Starting(_)) {
            *phase = Phase::Serving(Instant::now());
        }
    }

    /// The drain has begun; final.
    pub fn draining(&self) {
        *self.lock() = Phase::Draining;
    }

    /// Judges readiness now. `raft` is where this replica stands, once it takes part.
    pub fn readiness(&self, raft: Option<&RaftStatus>) -> Readiness {
        let mut readiness = self.judge(raft, Instant::now());
        if let Some(remark) = self.remark.get()
            && readiness.ready
        {
            readiness.reason = format!("{}; {remark}", readiness.reason);
        }
        let complaint = *self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(complaint) = complaint
            && readiness.ready
        {
            readiness.reason = format!("{}; {complaint}", readiness.reason);
        }
        readiness
    }

    fn judge(&self, raft: Option<&RaftStatus>, now: Instant) -> Readiness {
        let not_ready = |reason: String| Readiness { ready: false, reason };
        let since = match self.lock().clone() {
            Phase::Starting(reason) => return not_ready(format!("starting: {reason}")),
            Phase::Draining => return not_ready("draining".to_owned()),
            Phase::Serving(since) => since,
        };
        let Some(raft) = raft else {
            return not_ready("starting: joining the Raft group".to_owned());
        };
        if let Some(refused) = &raft.refused {
            return not_ready(format!("the cluster refuses this replica: {refused}"));
        }
        if !raft.is_member {
            return not_ready("waiting to be taken into the cluster".to_owned());
        }
        if raft.leader.is_some() {
            self.had_leader.store(true, Ordering::Relaxed);
            return Readiness { ready: true, reason: "ready".to_owned() };
        }
        let waited = now.saturating_duration_since(since);
        if self.had_leader.load(Ordering::Relaxed) || waited >= LEADER_PATIENCE {
            let reason = "ready for pulls, which may be stale; no leader, so pushes get 503";
            return Readiness { ready: true, reason: reason.to_owned() };
        }
        not_ready("no leader yet".to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_raft::Role;

    use super::*;

    fn raft(leader: Option<&str>) -> RaftStatus {
        RaftStatus {
            term: 1,
            applied: 1,
            last_log: 1,
            leader: leader.map(ToOwned::to_owned),
            role: Role::Follower,
            is_member: true,
            refused: None,
            removed: false,
            changing_members: false,
        }
    }

    #[test]
    fn a_start_that_waits_says_for_what() {
        let health = Health::starting();
        health.progress("no answer from tercet-2");
        let readiness = health.readiness(None);
        assert!(!readiness.ready);
        assert_eq!(readiness.reason, "starting: no answer from tercet-2");
    }

    #[test]
    fn a_replica_that_loses_its_leader_stays_ready_for_pulls() {
        let health = Health::starting();
        health.serving();
        assert!(!health.readiness(Some(&raft(None))).ready);
        assert!(health.readiness(Some(&raft(Some("tercet-1")))).ready);
        assert!(health.readiness(Some(&raft(None))).ready);
    }

    #[test]
    fn the_last_replica_becomes_ready_without_a_leader() {
        let health = Health::starting();
        health.serving();
        let later = Instant::now() + LEADER_PATIENCE;
        assert!(health.judge(Some(&raft(None)), later).ready);
    }

    #[test]
    fn a_replica_that_is_no_member_or_refused_is_not_ready() {
        let health = Health::starting();
        health.serving();
        let stranger = RaftStatus { is_member: false, ..raft(Some("tercet-1")) };
        assert!(!health.readiness(Some(&stranger)).ready);
        let refused = RaftStatus { refused: Some("name in use".into()), ..raft(None) };
        assert!(health.readiness(Some(&refused)).reason.contains("name in use"));
    }

    #[test]
    fn a_remark_is_told_by_a_ready_replica() {
        let health = Health::starting();
        health.remark("nobody else is let in".into());
        assert!(!health.readiness(None).reason.contains("let in"));
        health.serving();
        let readiness = health.readiness(Some(&raft(Some("a"))));
        assert!(readiness.ready);
        assert_eq!(readiness.reason, "ready; nobody else is let in");
    }

    #[test]
    fn a_complaint_lasts_until_it_is_taken_back() {
        let health = Health::starting();
        health.serving();
        health.complain(Some("the disk is full"));
        let told = health.readiness(Some(&raft(Some("a"))));
        assert_eq!((told.ready, told.reason.as_str()), (true, "ready; the disk is full"));
        health.complain(None);
        assert_eq!(health.readiness(Some(&raft(Some("a")))).reason, "ready");
    }

    #[test]
    fn a_drain_is_final() {
        let health = Health::starting();
        health.draining();
        health.serving();
        assert_eq!(health.readiness(Some(&raft(Some("a")))).reason, "draining");
    }
}
