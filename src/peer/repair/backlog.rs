//! The blobs that belong here and are not: since when, and when each is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tercet_storage::Digest;
use tokio::time::Instant;

/// Missing blobs known by name; more are counted only, and found again when these are done.
pub(crate) const NAMED_MAX: usize = 8_192;
/// One that failed so often makes room for another.
const FAILURES_MAX: u32 = 3;
/// Between two attempts at one blob, at most.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Between the first time that nobody has a blob and the second.
const NOWHERE_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    named: BTreeMap<Digest, Missing>,
    /// Those of `named` that are not being fetched, the one that is due first in front.
    waiting: BTreeSet<(Instant, Digest)>,
    /// How many of `named` have failed.
    failing: usize,
    beyond: Beyond,
    /// What `beyond` was when the running comparison began to count it anew.
    before: Beyond,
}

#[derive(Debug)]
struct Missing {
    size: u64,
    since: Instant,
    due: Instant,
    failures: u32,
    /// Of the last attempts, how many found that every member lacks it.
    nowhere: u32,
}

/// Missing beyond what can be named.
#[derive(Debug, Default, Clone, Copy)]
struct Beyond {
    count: usize,
    since: Option<Instant>,
}

impl Beyond {
    fn add(&mut self, since: Instant) {
        self.count += 1;
        self.since = Some(self.since.map_or(since, |known| known.min(since)));
    }
}

/// What an attempt that brought nothing has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setback {
    /// It is being fetched for somebody else.
    Busy,
    /// A member that may have it does not answer, or the disk does not take it.
    Failed,
    /// Every other member says that it lacks it.
    Nowhere,
}

/// When a blob is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// So long from now.
    pub(crate) pause: Duration,
    /// Every member has said twice in a row that it lacks it.
    pub(crate) lost: bool,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Blobs that belong here and are not.
    pub(crate) missing: usize,
    /// For how long the oldest of them has been known to be missing.
    pub(crate) oldest: Duration,
}

impl Backlog {
    /// Notes a missing blob, unless it is known already.
    pub(crate) fn note(&mut self, digest: Digest, size: u64, now: Instant) {
        if self.named.contains_key(&digest) {
            return;
        }
        if self.named.len() >= NAMED_MAX && !self.make_room() {
            self.beyond.add(now);
            return;
        }
        self.waiting.insert((now, digest.clone()));
        self.named.insert(digest, Missing { size, since: now, due: now, failures: 0, nowhere: 0 });
    }

    /// Drops one that has failed time and again, so that it does not stand in the way of others. The
    /// next comparison finds it.
    fn make_room(&mut self) -> bool {
        let Some((due, digest)) = self.waiting.last().cloned() else { return false };
        match self.named.get(&digest) {
            Some(missing) if missing.failures >= FAILURES_MAX => self.beyond.add(missing.since),
            _ => return false,
        }
        self.waiting.remove(&(due, digest.clone()));
        self.named.remove(&digest);
        self.failing -= 1;
        true
    }

    /// One that is due, with its size. It is not given out again before [`Backlog::done`] or
    /// [`Backlog::retry`].
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Digest, u64)> {
        let (due, _) = self.waiting.first()?;
        if *due > now {
            return None;
        }
        let (_, digest) = self.waiting.pop_first()?;
        let size = self.named.get(&digest)?.size;
        Some((digest, size))
    }

    /// It is here, or not needed any more.
    pub(crate) fn done(&mut self, digest: &Digest) {
        if let Some(missing) = self.named.remove(digest) {
            self.failing -= usize::from(missing.failures > 0);
            self.waiting.remove(&(missing.due, digest.clone()));
        }
    }

    /// An attempt brought nothing; `None` if the blob is not wanted any more.
    pub(crate) fn retry(
        &mut self,
        digest: &Digest,
        setback: Setback,
        now: Instant,
    ) -> Option<Retry> {
        let missing = self.named.get_mut(digest)?;
        let mut pause = Duration::from_secs(1);
        if setback != Setback::Busy {
            self.failing += usize::from(missing.failures == 0);
            missing.failures = missing.failures.saturating_add(1);
            missing.nowhere =
                if setback == Setback::Nowhere { missing.nowhere.saturating_add(1) } else { 0 };
            pause = match missing.nowhere {
                // Whether that was by chance is asked soon.
                1 => NOWHERE_PAUSE,
                _ => Duration::from_secs(1 << missing.failures.min(5)).min(BACKOFF_MAX),
            };
        }
        missing.due = now + pause;
        self.waiting.insert((missing.due, digest.clone()));
        Some(Retry { pause, lost: missing.nowhere >= 2 })
    }

    /// Makes all of them due: the members have changed, and so has what can be had.
    pub(crate) fn hurry(&mut self, now: Instant) {
        for (_, digest) in std::mem::take(&mut self.waiting) {
            if let Some(missing) = self.named.get_mut(&digest) {
                missing.due = now;
                self.waiting.insert((now, digest));
            }
        }
    }

    /// Drops those that do not belong here any more; returns them.
    pub(crate) fn retain(&mut self, belongs_here: impl Fn(&Digest) -> bool) -> Vec<Digest> {
        let gone: Vec<Digest> =
            self.named.keys().filter(|digest| !belongs_here(digest)).cloned().collect();
        for digest in &gone {
            self.done(digest);
        }
        gone
    }

    /// A comparison begins: it counts anew what cannot be named.
    pub(crate) fn begin_comparison(&mut self) {
        self.before = std::mem::take(&mut self.beyond);
    }

    /// A comparison has ended.
    pub(crate) fn end_comparison(&mut self) {
        let before = std::mem::take(&mut self.before);
        // The same blobs, as far as can be told: they have been missing for as long.
        if self.beyond.count > 0 {
            self.beyond.since = self.beyond.since.into_iter().chain(before.since).min();
        }
    }

    /// There are more than can be named, and those that are named are done or cannot be had now.
    pub(crate) fn wants_more(&self) -> bool {
        self.beyond.count > 0 && self.named.len() == self.failing && self.failing < NAMED_MAX
    }

    pub(crate) fn totals(&self, now: Instant) -> Totals {
        let beyond = self.beyond.count.max(self.before.count);
        let named = self.named.values().map(|missing| missing.since);
        let oldest = named.chain(self.beyond.since).chain(self.before.since).min();
        Totals {
            missing: self.named.len() + beyond,
            oldest: oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::Algorithm;

    use super::*;

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    #[test]
    fn each_is_given_out_once_until_it_is_settled() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        backlog.note(digest(1), 10, now);
        backlog.note(digest(1), 10, now);
        assert_eq!(backlog.next(now), Some((digest(1), 10)));
        assert_eq!(backlog.next(now), None);
        let retry = backlog.retry(&digest(1), Setback::Failed, now).unwrap();
        assert_eq!(retry, Retry { pause: Duration::from_secs(2), lost: false });
        assert_eq!(backlog.next(now), None);
        assert_eq!(backlog.next(now + retry.pause), Some((digest(1), 10)));
        backlog.done(&digest(1));
        assert_eq!(backlog.totals(now), Totals { missing: 0, oldest: Duration::ZERO });
        assert_eq!(backlog.retry(&digest(1), Setback::Failed, now), None);
        assert_eq!((backlog.failing, backlog.waiting.len()), (0, 0));
    }

    #[test]
    fn lost_is_what_everybody_lacks_twice_in_a_row() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        backlog.note(digest(1), 10, now);
        let mut lost = |setback| backlog.retry(&digest(1), setback, now).unwrap().lost;
        assert!(!lost(Setback::Nowhere));
        assert!(!lost(Setback::Failed));
        assert!(!lost(Setback::Nowhere));
        assert!(!lost(Setback::Busy));
        assert!(lost(Setback::Nowhere));
    }

    #[test]
    fn the_oldest_is_as_old_as_it_was_first_noticed() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let later = now + Duration::from_secs(7);
        backlog.note(digest(1), 10, now);
        backlog.note(digest(2), 10, later);
        let _ = backlog.next(now);
        let _ = backlog.retry(&digest(1), Setback::Failed, later);
        assert_eq!(backlog.totals(later), Totals { missing: 2, oldest: Duration::from_secs(7) });
        backlog.done(&digest(1));
        assert_eq!(backlog.totals(later), Totals { missing: 1, oldest: Duration::ZERO });
    }

    #[test]
    fn what_cannot_be_named_is_counted_and_wanted_once_the_named_are_done() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let all = NAMED_MAX + 5;
        (0..all).for_each(|number| backlog.note(digest(number), 1, now));
        assert_eq!(backlog.totals(now).missing, all);
        assert!(!backlog.wants_more());
        for number in 0..NAMED_MAX {
            backlog.done(&digest(number));
        }
        assert!(backlog.wants_more());
        backlog.begin_comparison();
        assert_eq!(backlog.totals(now).missing, 5);
        (NAMED_MAX..all).for_each(|number| backlog.note(digest(number), 1, now));
        backlog.end_comparison();
        assert_eq!(backlog.totals(now).missing, 5);
        assert!(!backlog.wants_more());
    }

    #[test]
    fn what_nobody_has_does_not_keep_the_others_from_coming() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        let began = now;
        (0..NAMED_MAX).for_each(|number| backlog.note(digest(number), 1, now));
        for _ in 0..FAILURES_MAX {
            while let Some((digest, _)) = backlog.next(now) {
                let _ = backlog.retry(&digest, Setback::Nowhere, now);
            }
            now += BACKOFF_MAX;
        }
        backlog.note(digest(NAMED_MAX), 1, now);
        assert!(backlog.named.contains_key(&digest(NAMED_MAX)));
        assert_eq!(backlog.totals(now), Totals { missing: NAMED_MAX + 1, oldest: now - began });
    }

    #[test]
    fn when_the_members_change_all_are_tried_at_once() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        backlog.note(digest(1), 10, now);
        let _ = backlog.next(now);
        let _ = backlog.retry(&digest(1), Setback::Failed, now);
        assert_eq!(backlog.next(now), None);
        backlog.hurry(now);
        assert_eq!(backlog.next(now), Some((digest(1), 10)));
        backlog.done(&digest(1));
        assert_eq!(backlog.waiting.len(), 0);
    }

    #[test]
    fn what_belongs_elsewhere_is_dropped() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        (0..4).for_each(|number| backlog.note(digest(number), 1, now));
        let gone = backlog.retain(|kept| *kept != digest(2));
        assert_eq!(gone, [digest(2)]);
        assert_eq!(backlog.totals(now).missing, 3);
    }
}
