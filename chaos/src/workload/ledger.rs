//! The book of a run: what was acknowledged, what was not, and which promise was broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::invariant::Invariant;
use crate::{
    check::{Ends, Operation},
    client::Answer,
    content::Image,
    say::warn,
    timeline::Recorder,
};

/// Of one invariant: enough to see what went wrong; the count goes on.
const VIOLATIONS_SHOWN: usize = 30;

/// Of things that must not be there, these many are looked for.
const NEVER_MAX: usize = 600;

/// How operations ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    ends: Ends,
    kept: BTreeSet<Kept>,
    images: Vec<KeptImage>,
    histories: BTreeMap<(String, String), Vec<Operation>>,
    violations: Vec<(Invariant, String)>,
    /// What was checked to the end.
    checked: BTreeSet<Invariant>,
    /// What nobody may ever have published, since only liars spoke of it.
    never: BTreeSet<Kept>,
    /// Lies told, by kind.
    lies: BTreeMap<&'static str, u64>,
    /// When the last write was acknowledged, and the longest time without one.
    last_write: Option<Instant>,
    longest_pause: Duration,
}

/// What clients were promised. All times are of one clock.
#[derive(Debug)]
pub struct Ledger {
    start: Instant,
    recorder: Arc<Recorder>,
    book: Mutex<Book>,
    /// What a replica passes on to another one may come back damaged: nothing but content has a digest.
    relays_are_damaged: AtomicBool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            recorder: Arc::default(),
            book: Mutex::default(),
            relays_are_damaged: AtomicBool::new(false),
        }
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the words of an error about an upload may be illegible: another replica's, in the clear, on a link that
    /// damages bodies.
    pub(crate) fn relays_are_damaged(&self) {
        self.relays_are_damaged.store(true, Ordering::Relaxed);
    }

    pub(crate) fn may_be_illegible(&self, answer: &Answer) -> bool {
        self.relays_are_damaged.load(Ordering::Relaxed) && answer.url.contains("/blobs/uploads/")
    }

    /// What takes down what happens when.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.book().counts);
    }

    /// A request was judged, or its end was.
    pub(crate) fn tally(&self, change: impl FnOnce(&mut Ends)) {
        change(&mut self.book().ends);
    }

    /// How the requests ended that were judged.
    pub(crate) fn ends(&self) -> Ends {
        self.book().ends
    }

    /// A write was acknowledged.
    pub(crate) fn wrote(&self) {
        self.recorder.wrote();
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

    /// An image was acknowledged under a tag that nobody else sets, and with it every blob that it names.
    pub(crate) fn keep_whole_image(&self, repository: &str, tag: &str, image: &Image) {
        self.keep_image(repository, tag, image);
        for blob in &image.blobs {
            self.keep_blob(repository, &blob.digest);
        }
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

    /// Only liars speak of this: it must not be there at the end.
    pub(crate) fn never(&self, what: Kept) {
        let mut book = self.book();
        // Enough to see that it is never believed; a check of each at every replica takes its time.
        if book.never.len() < NEVER_MAX {
            book.never.insert(what);
        }
    }

    /// Everything that must not be there.
    pub(crate) fn all_never(&self) -> Vec<Kept> {
        self.book().never.iter().cloned().collect()
    }

    /// A lie was told to a replica.
    pub(crate) fn lied(&self, kind: &'static str) {
        *self.book().lies.entry(kind).or_default() += 1;
    }

    /// Lies told so far, by kind.
    pub(crate) fn lies(&self) -> BTreeMap<&'static str, u64> {
        self.book().lies.clone()
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
        // Many of one kind do not hide the first of another.
        let known = book.violations.iter().filter(|(of, _)| *of == invariant).count();
        if known < VIOLATIONS_SHOWN {
            warn(&format!("VIOLATED {invariant}: {what}"));
            self.recorder.mark(&format!("{invariant}: {what}"));
            book.violations.push((invariant, what));
        }
    }

    /// The histories of all tags, which are then no longer in the book.
    pub(crate) fn take_histories(&self) -> BTreeMap<(String, String), Vec<Operation>> {
        std::mem::take(&mut self.book().histories)
    }

    /// The histories of all tags as they are now.
    pub(crate) fn histories(&self) -> BTreeMap<(String, String), Vec<Operation>> {
        self.book().histories.clone()
    }

    /// An invariant was checked to the end, whatever that found.
    pub(crate) fn checked(&self, invariant: Invariant) {
        self.book().checked.insert(invariant);
    }

    /// The invariants that were checked to the end.
    pub(crate) fn all_checked(&self) -> BTreeSet<Invariant> {
        self.book().checked.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_violations_of_one_kind_do_not_hide_another() {
        let ledger = Ledger::default();
        for number in 0..2 * VIOLATIONS_SHOWN {
            ledger.violated(Invariant::I7, format!("500, number {number}"));
        }
        ledger.violated(Invariant::I1, "a blob is gone".to_owned());
        let shown = ledger.violations();
        assert_eq!(shown.len(), VIOLATIONS_SHOWN + 1);
        assert!(shown.iter().any(|(invariant, _)| *invariant == Invariant::I1));
        assert_eq!(ledger.counts().violations, 2 * VIOLATIONS_SHOWN as u64 + 1);
    }
}
