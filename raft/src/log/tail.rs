//! The newest entries of the log, in memory.
//!
//! What has just been appended is read again at once, by each stream of replication and by the state machine. From the
//! database that is an iterator, a copy and a decoding for each of them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::type_config::alias::Entry;

/// Entries that are kept.
const ENTRIES_MAX: usize = 1024;
/// Bytes of those entries as they are encoded; about what they take here.
const BYTES_MAX: usize = 1024 * 1024;

/// The end of the log without a gap, as far as there is room; all of it is in the database too.
#[derive(Default)]
pub(super) struct Tail {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Written>,
    bytes: usize,
}

/// An entry, and how long it is when it is encoded.
pub(super) struct Written {
    pub(super) entry: Entry,
    pub(super) bytes: usize,
}

impl Written {
    fn index(&self) -> u64 {
        self.entry.log_id.index
    }
}

impl Tail {
    /// These were written behind the end of the log.
    pub(super) fn append(&self, entries: Vec<Written>) {
        let mut kept = self.kept();
        for new in entries {
            let follows = kept.entries.back().is_none_or(|last| last.index() + 1 == new.index());
            if !follows {
                *kept = Kept::default();
            }
            kept.bytes += new.bytes;
            kept.entries.push_back(new);
        }
        while kept.entries.len() > ENTRIES_MAX || kept.bytes > BYTES_MAX {
            kept.drop_first();
        }
    }

    /// The log ends before this index from now on.
    pub(super) fn truncate_from(&self, first_removed: u64) {
        let mut kept = self.kept();
        while kept.entries.back().is_some_and(|last| last.index() >= first_removed) {
            let removed = kept.entries.pop_back();
            kept.bytes -= removed.map_or(0, |one| one.bytes);
        }
    }

    /// The log begins behind this index from now on.
    pub(super) fn purge_to(&self, last_removed: u64) {
        let mut kept = self.kept();
        while kept.entries.front().is_some_and(|first| first.index() <= last_removed) {
            kept.drop_first();
        }
    }

    /// Entries from `start` up to `end` (exclusive), stopping once `bytes_max` is exceeded, but one at least. `None` unless
    /// all of them are here: then the database has to be asked.
    pub(super) fn entries(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let kept = self.kept();
        let first = kept.entries.front()?.index();
        let behind_last = kept.entries.back()?.index() + 1;
        if start < first || start >= end || end > behind_last {
            return None;
        }
        let skipped = usize::try_from(start - first).ok()?;
        let wanted = usize::try_from(end - start).ok()?;
        let mut bytes_read = 0;
        let fits = |one: &&Written| {
            bytes_read += one.bytes;
            bytes_read <= bytes_max || bytes_read == one.bytes
        };
        let wanted = kept.entries.iter().skip(skipped).take(wanted).take_while(fits);
        Some(wanted.map(|one| one.entry.clone()).collect())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics half way.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn drop_first(&mut self) {
        let removed = self.entries.pop_front();
        self.bytes -= removed.map_or(0, |one| one.bytes);
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::type_config::alias::LogId;

    fn entry(index: u64, term: u64) -> Written {
        let leader_id = crate::type_config::alias::LeaderId { term, node_id: 1 };
        let log_id = LogId { leader_id, index };
        Written { entry: Entry { log_id, payload: EntryPayload::Blank }, bytes: 100 }
    }

    fn tail(indexes: std::ops::Range<u64>) -> Tail {
        let tail = Tail::default();
        tail.append(indexes.map(|index| entry(index, 1)).collect());
        tail
    }

    fn indexes(tail: &Tail, start: u64, end: u64, bytes_max: usize) -> Option<Vec<u64>> {
        let entries = tail.entries(start, end, bytes_max)?;
        Some(entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn it_has_what_was_appended_and_says_when_it_lacks_something() {
        let tail = tail(5..9);
        assert_eq!(indexes(&tail, 5, 9, usize::MAX), Some(vec![5, 6, 7, 8]));
        assert_eq!(indexes(&tail, 6, 8, usize::MAX), Some(vec![6, 7]));
        for (start, end) in [(4, 9), (5, 10), (0, u64::MAX), (9, 10), (7, 7)] {
            assert_eq!(indexes(&tail, start, end, usize::MAX), None, "{start}..{end}");
        }
    }

    #[test]
    fn a_page_has_one_entry_at_least_and_ends_before_the_bytes_do() {
        let tail = tail(5..9);
        assert_eq!(indexes(&tail, 5, 9, 250), Some(vec![5, 6]));
        assert_eq!(indexes(&tail, 6, 9, 1), Some(vec![6]));
    }

    #[test]
    fn what_was_truncated_or_purged_is_gone_and_what_replaces_it_is_there() {
        let tail = tail(5..9);
        tail.truncate_from(7);
        assert_eq!(indexes(&tail, 5, 9, usize::MAX), None);
        tail.append(vec![entry(7, 2)]);
        let terms = tail.entries(5, 8, usize::MAX).map(|entries| {
            entries.iter().map(|entry| entry.log_id.leader_id.term).collect::<Vec<_>>()
        });
        assert_eq!(terms, Some(vec![1, 1, 2]));
        tail.purge_to(5);
        assert_eq!(indexes(&tail, 5, 8, usize::MAX), None);
        assert_eq!(indexes(&tail, 6, 8, usize::MAX), Some(vec![6, 7]));
    }

    #[test]
    fn a_gap_empties_it_and_it_keeps_the_newest_within_its_bounds() {
        let tail = tail(5..9);
        tail.append(vec![entry(100, 1)]);
        assert_eq!(indexes(&tail, 100, 101, usize::MAX), Some(vec![100]));
        assert_eq!(indexes(&tail, 5, 9, usize::MAX), None);
        tail.append((101..2_000).map(|index| entry(index, 1)).collect());
        assert_eq!(indexes(&tail, 975, 976, usize::MAX), None);
        assert_eq!(indexes(&tail, 976, 977, usize::MAX), Some(vec![976]));
        let large = Written { bytes: BYTES_MAX + 1, ..entry(2_000, 1) };
        tail.append(vec![large]);
        assert_eq!(indexes(&tail, 2_000, 2_001, usize::MAX), None);
    }
}
