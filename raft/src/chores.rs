//! What a leader does beside leading: it finishes what an earlier one began, raises the feature level, and
//! steps aside when its disk has become slow.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::Inner;
use crate::roster::VotersAfter;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a handover may take before the round goes on.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(5);

/// A leader whose fsyncs take longer than this on average is slow.
const SLOW_FSYNC: Duration = Duration::from_millis(250);
/// For so long without a break.
const SLOW_FOR: Duration = Duration::from_secs(10);
/// And at least so many times slower than the follower that would lead.
const SLOWER_THAN_HEIR: u32 = 4;
/// Between two times that this replica steps aside: if its judgement is wrong, it is rarely so.
const STEP_ASIDE_EVERY: Duration = Duration::from_secs(60);

/// Runs until stopped; idle while another replica leads.
pub(crate) async fn keep(inner: Arc<Inner>, stop: CancellationToken) {
    let mut slow = SlowDisk::default();
    let mut told = String::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if !inner.is_leader() {
            slow.since = None;
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round(&inner, &mut slow, &mut told) => {}
        }
    }
}

async fn round(inner: &Inner, slow: &mut SlowDisk, told: &mut String) {
    if let Err(why) = inner.tidy_membership().await {
        tracing::debug!("an earlier membership change is not finished yet: {why}");
    }
    if let Err(why) = inner.raise_level().await
        && *told != why
    {
        tracing::info!("the feature level stays: {why}");
        *told = why;
    }
    if slow.must_step_aside(inner.fsync.mean(), Instant::now())
        && let Some(heir) = inner.faster_follower()
    {
        slow.stepped_aside = Some(Instant::now());
        tracing::warn!(
            fsync = ?inner.fsync.mean(),
            to = %heir.name,
            "this replica's disk is slow: handing leadership over"
        );
        inner.hand_over(&heir, HANDOVER_DEADLINE).await;
    }
}

/// Judges this replica's own disk.
#[derive(Default)]
struct SlowDisk {
    since: Option<Instant>,
    stepped_aside: Option<Instant>,
}

impl SlowDisk {
    fn must_step_aside(&mut self, mean: Option<Duration>, now: Instant) -> bool {
        if mean.is_none_or(|mean| mean <= SLOW_FSYNC) {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let rested = self
            .stepped_aside
            .is_none_or(|at| now.saturating_duration_since(at) >= STEP_ASIDE_EVERY);
        rested && now.saturating_duration_since(since) >= SLOW_FOR
    }
}

impl Inner {
    /// The follower that would lead best, if one confirms entries much faster than this replica writes
    /// them. What a follower takes includes the way there, so one that passes is surely fast.
    fn faster_follower(&self) -> Option<crate::network::Target> {
        let own = self.fsync.mean()?;
        let fast = |id| {
            let mean = self.peer_latencies.of(id).mean();
            mean.is_some_and(|mean| mean * SLOWER_THAN_HEIR <= own)
        };
        self.heirs().into_iter().find(|heir| fast(heir.node_id))
    }

    /// Takes ids out of the membership that were retired without a successor, and finishes a change that
    /// stopped between its two steps: whoever began it is gone.
    async fn tidy_membership(&self) -> Result<(), String> {
        let unfinished = self.unfinished_change();
        let orphans = self.retired_without_successor();
        if unfinished.is_none() && orphans.is_empty() {
            return Ok(());
        }
        let Ok(_changing) = self.changing.try_lock() else {
            return Err("another membership change is under way".to_owned());
        };
        if orphans.contains(&self.identity.node_id) {
            // Whoever leads next takes this replica out. Without an heir it does so itself.
            if let Some(heir) =
                self.heirs().into_iter().find(|heir| !orphans.contains(&heir.node_id))
            {
                self.hand_over(&heir, HANDOVER_DEADLINE).await;
                return Ok(());
            }
        }
        self.finish_unfinished_change().await?;
        let VotersAfter::Some(rest) = self.voters_without(&orphans) else {
            return Err("the ids to remove are all that vote".to_owned());
        };
        // Others may have gone since the removal was judged: a change that cannot end would stop writes.
        let reach = self.reach_of(&rest);
        if reach.reachable < reach.needed {
            return Err("too few of the voters that stay are reachable".to_owned());
        }
        self.take_out(&orphans).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_has_to_be_slow_for_long_and_steps_aside_rarely() {
        let mut slow = SlowDisk::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let bad = Some(Duration::from_millis(500));
        assert!(!slow.must_step_aside(bad, at(0)));
        assert!(!slow.must_step_aside(bad, at(9)));
        assert!(slow.must_step_aside(bad, at(10)));
        // A good moment, or silence, begins the count anew.
        assert!(!slow.must_step_aside(Some(Duration::from_millis(5)), at(11)));
        assert!(!slow.must_step_aside(bad, at(12)));
        assert!(!slow.must_step_aside(None, at(20)));
        assert!(!slow.must_step_aside(bad, at(21)));
        assert!(slow.must_step_aside(bad, at(31)));
        slow.stepped_aside = Some(at(31));
        assert!(!slow.must_step_aside(bad, at(45)));
        assert!(!slow.must_step_aside(bad, at(90)));
        assert!(slow.must_step_aside(bad, at(91)));
    }
}
