//! The book of a run: what was acknowledged, what was not, and which promise was broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::invariant::Invariant;
use crate::{
    check::{Operation, check_register},
    content::Image,
};

/// Enough to see what went wrong; the count goes on.
const VIOLATIONS_SHOWN: usize = 30;

/// How operations ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Writes that were answered with success.
    pub acknowledged_writes: u64,
    /// Reads that were answered with what they asked for.
    pub acknowledged_reads: u64,
    /// Answers that said: not now, or not this. A write that got a 5xx may have happened all the same.
    pub refused: u64,
    /// Requests that were sent and got no answer: nobody knows.
    pub unknown: u64,
    /// Requests that surely did not happen: nobody listened.
    pub failed: u64,
    /// Reads that were answered with a warning that the answer may be stale.
    pub stale_reads: u64,
    /// Whole pulls that no replica answered.
    pub failed_pulls: u64,
    /// Acknowledged things that are gone.
    pub lost: u64,
    /// Answers with bytes that are not those of their digest.
    pub wrong_bytes: u64,
    /// Broken promises of any kind.
    pub violations: u64,
}

/// Something acknowledged that must be there until the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// The repository.
    pub repository: String,
    /// What to ask for: a digest or a tag.
    pub reference: String,
    /// What the bytes must hash to.
    pub digest: String,
    /// Whether it is a manifest; else a blob.
    pub manifest: bool,
}

/// A whole image that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct KeptImage {
    pub(crate) repository: String,
    pub(crate) tag: String,
    pub(crate) manifest: String,
    pub(crate) blobs: Vec<String>,
}

#[derive(Debug, Default)]
struct Book {
    counts: Counts,
    kept: BTreeSet<Kept>,
    images: Vec<KeptImage>,
    histories: BTreeMap<(String, String), Vec<Operation>>,
    violations: Vec<(Invariant, String)>,
    /// When the last write was acknowledged, and the longest time without one.
    last_write: Option<Instant>,
    longest_pause: Duration,
}

/// What clients were promised. All times are of one clock.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    book: Mutex<Book>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { start: Instant::now(), book: Mutex::default() }
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.book().counts);
    }

    /// A write was acknowledged.
    pub(crate) fn wrote(&self) {
        let mut book = self.book();
        book.counts.acknowledged_writes += 1;
        let now = Instant::now();
        if let Some(last) = book.last_write.replace(now) {
            book.longest_pause = book.longest_pause.max(now - last);
        }
    }

    /// A blob was acknowledged.
    pub(crate) fn keep_blob(&self, repository: &str, digest: &str) {
        self.book().kept.insert(Kept {
            repository: repository.to_owned(),
            reference: digest.to_owned(),
            digest: digest.to_owned(),
            manifest: false,
        });
    }

    /// An image was acknowledged under a tag that nobody else sets.
    pub(crate) fn keep_image(&self, repository: &str, tag: &str, image: &Image) {
        let mut book = self.book();
        let digest = &image.manifest.digest;
        for reference in [digest.as_str(), tag] {
            book.kept.insert(Kept {
                repository: repository.to_owned(),
                reference: reference.to_owned(),
                digest: digest.clone(),
                manifest: true,
            });
        }
        book.images.push(KeptImage {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            manifest: digest.clone(),
            blobs: image.blobs.iter().map(|blob| blob.digest.clone()).collect(),
        });
    }

    /// An image of which `choose` gets the count and says the index.
    pub(crate) fn image(&self, choose: impl FnOnce(usize) -> usize) -> Option<KeptImage> {
        let book = self.book();
        let count = book.images.len();
        if count == 0 {
            return None;
        }
        book.images.get(choose(count)).cloned()
    }

    /// Everything that must be there.
    pub fn kept(&self) -> Vec<Kept> {
        self.book().kept.iter().cloned().collect()
    }

    /// The digests of all blobs that must be there.
    pub(crate) fn kept_blobs(&self) -> BTreeSet<String> {
        let book = self.book();
        let blobs = book.kept.iter().filter(|kept| !kept.manifest);
        blobs.map(|kept| kept.digest.clone()).collect()
    }

    /// The repositories that something was acknowledged in.
    pub(crate) fn repositories(&self) -> BTreeSet<String> {
        let book = self.book();
        let kept = book.kept.iter().map(|kept| kept.repository.clone());
        kept.chain(book.histories.keys().map(|(repository, _)| repository.clone())).collect()
    }

    /// Adds to the history of a tag.
    pub(crate) fn record(&self, repository: &str, tag: &str, operation: Operation) {
        let key = (repository.to_owned(), tag.to_owned());
        self.book().histories.entry(key).or_default().push(operation);
    }

    /// A promise was broken.
    pub fn violated(&self, invariant: Invariant, what: String) {
        let mut book = self.book();
        book.counts.violations += 1;
        if book.violations.len() < VIOLATIONS_SHOWN {
            eprintln!("VIOLATED {invariant}: {what}");
            book.violations.push((invariant, what));
        }
    }

    /// Something acknowledged is gone.
    pub(crate) fn lost(&self, what: String) {
        self.count(|counts| counts.lost += 1);
        self.violated(Invariant::I1, what);
    }

    /// An answer carried wrong bytes.
    pub(crate) fn wrong_bytes(&self, what: String) {
        self.count(|counts| counts.wrong_bytes += 1);
        self.violated(Invariant::I2, what);
    }

    /// Checks the histories of all tags. Returns how many tags and operations there were.
    pub(crate) fn check_tags(&self) -> (usize, usize) {
        let histories = std::mem::take(&mut self.book().histories);
        for ((repository, tag), history) in &histories {
            if let Err(reason) = check_register(history) {
                self.violated(Invariant::I3, format!("{repository}:{tag}: {reason}"));
            }
        }
        (histories.len(), histories.values().map(Vec::len).sum())
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        self.book().counts.clone()
    }

    /// The broken promises, the first ones in words.
    pub fn violations(&self) -> Vec<(Invariant, String)> {
        self.book().violations.clone()
    }

    /// The longest time between two acknowledged writes.
    pub fn longest_pause(&self) -> Duration {
        self.book().longest_pause
    }
}
