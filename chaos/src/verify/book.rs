//! What a cluster has promised to this program, on this program's own disk, across runs.
//!
//! One file, `ledger.log`, to which lines are added and from which none is ever taken. Each line is the first sixteen
//! hex digits of the SHA-256 of its JSON, a space, and the JSON. What counts as kept is on disk before it counts. A last
//! line that is not whole was never counted, and is cut off; any other damage is told and nothing is overwritten.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    check::{Operation, OperationKind},
    digest::sha256,
};

const FILE: &str = "ledger.log";
/// Of the lines; a newer one is refused.
const VERSION: u32 = 1;
const SUM_DIGITS: usize = 16;

/// One line. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub(super) enum Entry {
    /// The first line. Without an id it is of a program that did not give ledgers any.
    Ledger {
        version: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// A run began.
    Run { number: u64, seed: u64, at: i64, repository: String, targets: Vec<String> },
    /// An image was acknowledged, whole.
    Image { repository: String, tag: String, manifest: String, blobs: Vec<String> },
    /// A tag is about to be set: from now on it may be.
    Writing { repository: String, tag: String, digest: String, at: i64, target: String },
    /// That was acknowledged.
    Wrote { digest: String, at: i64 },
    /// That was refused, surely.
    Refused { digest: String },
    /// A tag was read.
    Read {
        repository: String,
        tag: String,
        digest: Option<String>,
        from: i64,
        to: i64,
        target: String,
    },
    /// An image is about to be deleted by this program.
    Deleting { manifest: String },
}

/// Whether a line counts only once it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// It does.
    Now,
    /// It is an answer to a question, which nobody relies on.
    Later,
}

/// An acknowledged image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptImage {
    pub(super) repository: String,
    pub(super) tag: String,
    pub(super) manifest: String,
    pub(super) blobs: Vec<String>,
}

/// What a run wants to do with the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Look at it; it is left as it is, or as it is not.
    Read,
    /// Add to it.
    Append,
}

/// The open file, and what is in it.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    /// Tells it from any other ledger, so that two on one cluster do not push the same names.
    pub(super) id: Option<String>,
    /// `None` for one that is not there, and only looked at.
    file: Mutex<Option<File>>,
    /// What earlier runs have left.
    pub(super) runs: u64,
    /// Acknowledged, and not deleted by this program.
    pub(super) images: Vec<KeptImage>,
    /// The histories of all tags by repository and tag.
    pub(super) histories: BTreeMap<(String, String), Vec<Operation>>,
    /// The latest time in it.
    pub(super) last: i64,
    /// Bytes of a last line that was not whole.
    pub(super) torn: u64,
}

impl Book {
    /// Opens the ledger in a folder. Whoever adds to it makes the folder if it is not there, and nobody else may have
    /// it open meanwhile.
    ///
    /// # Errors
    /// If it cannot be read or locked, or is damaged before its last line.
    pub(super) fn open(folder: &Path, access: Access) -> Result<Self> {
        let path = folder.join(FILE);
        let mut file = open_file(folder, &path, access)?;
        let mut bytes = Vec::new();
        if let Some(file) = &mut file {
            file.read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
        }
        let (entries, whole) =
            parse(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        let torn = (bytes.len() - whole) as u64;
        if torn > 0
            && access == Access::Append
            && let Some(file) = &mut file
        {
            file.set_len(whole as u64)
                .and_then(|()| file.sync_all())
                .context("cut the torn line")?;
            file.seek(SeekFrom::End(0))?;
        }
        let mut book = Self {
            path,
            id: None,
            file: Mutex::new(file),
            runs: 0,
            images: Vec::new(),
            histories: BTreeMap::new(),
            last: 0,
            torn,
        };
        if !entries.is_empty() {
            book.take_in(entries)?;
        } else if access == Access::Append {
            book.id = Some(format!("{:08x}", rand::random::<u32>()));
            let first = Entry::Ledger { version: VERSION, id: book.id.clone() };
            book.append(&first, Durable::Now)?;
            // The name of the file as well.
            File::open(folder).and_then(|folder| folder.sync_all()).context("fsync the folder")?;
        }
        Ok(book)
    }

    fn take_in(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut entries = entries.into_iter();
        match entries.next() {
            Some(Entry::Ledger { version: VERSION, id }) => self.id = id,
            Some(Entry::Ledger { version, .. }) => bail!(
                "{} has format {version}, this program knows {VERSION}: use a newer one",
                self.path.display()
            ),
            _ => bail!("{} does not begin as a ledger", self.path.display()),
        }
        let mut deleted = BTreeSet::new();
        let mut open: BTreeMap<String, (String, String, Operation)> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Ledger { .. } => {}
                Entry::Run { number, at, .. } => {
                    self.runs = self.runs.max(number);
                    self.last = self.last.max(at);
                }
                Entry::Image { repository, tag, manifest, blobs } => {
                    self.images.push(KeptImage { repository, tag, manifest, blobs });
                }
                Entry::Deleting { manifest } => {
                    deleted.insert(manifest);
                }
                Entry::Writing { repository, tag, digest, at, target } => {
                    self.last = self.last.max(at);
                    let kind = OperationKind::Write(digest.clone());
                    let operation = Operation::new(kind, at, None).at(target);
                    open.insert(digest, (repository, tag, operation));
                }
                Entry::Wrote { digest, at } => {
                    self.last = self.last.max(at);
                    if let Some((_, _, operation)) = open.get_mut(&digest) {
                        operation.returned = Some(at);
                    }
                }
                Entry::Refused { digest } => {
                    open.remove(&digest);
                }
                Entry::Read { repository, tag, digest, from, to, target } => {
                    self.last = self.last.max(to);
                    let kind = OperationKind::Read(digest);
                    let operation = Operation::new(kind, from, Some(to)).at(target);
                    self.histories.entry((repository, tag)).or_default().push(operation);
                }
            }
        }
        for (repository, tag, operation) in open.into_values() {
            self.histories.entry((repository, tag)).or_default().push(operation);
        }
        self.images.retain(|image| !deleted.contains(&image.manifest));
        Ok(())
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If it may not be on disk: it does not count then.
    pub(super) fn append(&self, entry: &Entry, durable: Durable) -> Result<()> {
        let line = line(entry)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_mut().context("a ledger that is only looked at")?;
        let written = file.write_all(line.as_bytes()).and_then(|()| match durable {
            Durable::Now => file.sync_data(),
            Durable::Later => Ok(()),
        });
        written.with_context(|| format!("write to {}", self.path.display()))
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// If it may not be.
    pub(super) fn sync(&self) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_ref() else { return Ok(()) };
        file.sync_data().with_context(|| format!("fsync {}", self.path.display()))
    }
}

/// The file, locked; `None` if there is none and none is to be made.
fn open_file(folder: &Path, path: &Path, access: Access) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true);
    if access == Access::Append {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        options.append(true).create(true);
    }
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound && access == Access::Read => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    file.try_lock()
        .map_err(|_| anyhow::anyhow!("{} is in use by another verification", path.display()))?;
    Ok(Some(file))
}

fn line(entry: &Entry) -> Result<String> {
    let json = serde_json::to_string(entry)?;
    Ok(format!("{} {json}\n", sum(&json)?))
}

fn sum(json: &str) -> Result<String> {
    let digest = sha256(json.as_bytes());
    let hex = digest.split_once(':').map_or(digest.as_str(), |(_, hex)| hex);
    Ok(hex.get(..SUM_DIGITS).context("a digest has digits")?.to_owned())
}

/// The lines, and where the last whole one ends.
fn parse(bytes: &[u8]) -> Result<(Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    let mut position = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let last = position + line.len() == bytes.len();
        match entry(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if last => return Ok((entries, position)),
            Err(error) => return Err(error.context(format!("line {}", number + 1))),
        }
        position += line.len();
    }
    Ok((entries, position))
}

fn entry(line: &[u8]) -> Result<Entry> {
    let text = std::str::from_utf8(line).context("it is no text")?;
    let text = text.strip_suffix('\n').context("it has no end")?;
    let (stated, json) = text.split_once(' ').context("it has no checksum")?;
    ensure!(stated == sum(json)?, "its checksum is wrong");
    serde_json::from_str(json).context("it is of a newer program, or no line of a ledger")
}

/// Nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn image(number: u32) -> Entry {
        Entry::Image {
            repository: "a/images".into(),
            tag: format!("t{number}"),
            manifest: format!("sha256:{number}"),
            blobs: vec!["sha256:b".into()],
        }
    }

    fn writing(digest: &str, at: i64) -> Entry {
        Entry::Writing {
            repository: "a/tags".into(),
            tag: "r".into(),
            digest: digest.into(),
            at,
            target: "x".into(),
        }
    }

    fn tags(book: &Book) -> Vec<&str> {
        book.images.iter().map(|image| image.tag.as_str()).collect()
    }

    #[test]
    fn what_was_written_is_there_in_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::open(folder.path(), Access::Append).unwrap();
        let run = |number| Entry::Run {
            number,
            seed: 1,
            at: 5,
            repository: "a".into(),
            targets: vec!["x".into()],
        };
        for entry in [run(1), image(1), image(2), writing("d1", 7), writing("d2", 8)] {
            book.append(&entry, Durable::Now).unwrap();
        }
        book.append(&Entry::Wrote { digest: "d1".into(), at: 9 }, Durable::Now).unwrap();
        book.append(&writing("d3", 10), Durable::Later).unwrap();
        book.append(&Entry::Refused { digest: "d3".into() }, Durable::Later).unwrap();
        book.append(&Entry::Deleting { manifest: "sha256:1".into() }, Durable::Now).unwrap();
        // Not while somebody has it.
        let error = Book::open(folder.path(), Access::Append).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error:#}");
        drop(book);
        let book = Book::open(folder.path(), Access::Append).unwrap();
        assert_eq!((book.runs, book.last, book.torn), (1, 10, 0));
        assert_eq!(tags(&book), ["t2"]);
        let history = &book.histories[&("a/tags".to_owned(), "r".to_owned())];
        let returned: Vec<Option<i64>> = history.iter().map(|one| one.returned).collect();
        assert_eq!(returned, [Some(9), None]);
    }

    #[test]
    fn who_only_looks_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("not there");
        let book = Book::open(&nowhere, Access::Read).unwrap();
        assert_eq!((book.runs, book.id), (0, None));
        assert!(!nowhere.exists());
        let book = Book::open(folder.path(), Access::Append).unwrap();
        book.append(&image(1), Durable::Now).unwrap();
        let id = book.id.clone();
        assert!(id.is_some());
        drop(book);
        let path = folder.path().join(FILE);
        let torn = [fs::read(&path).unwrap(), b"half a l".to_vec()].concat();
        fs::write(&path, &torn).unwrap();
        let book = Book::open(folder.path(), Access::Read).unwrap();
        assert_eq!((tags(&book), book.torn, &book.id), (vec!["t1"], 8, &id));
        book.append(&image(2), Durable::Now).unwrap_err();
        drop(book);
        assert_eq!(fs::read(&path).unwrap(), torn);
        // A ledger of before there were ids.
        fs::write(&path, line(&Entry::Ledger { version: VERSION, id: None }).unwrap()).unwrap();
        assert_eq!(Book::open(folder.path(), Access::Append).unwrap().id, None);
    }

    #[test]
    fn a_torn_last_line_never_counted_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::open(folder.path(), Access::Append).unwrap();
        book.append(&image(1), Durable::Now).unwrap();
        drop(book);
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let next = line(&image(2)).unwrap();
        for cut in 1..next.len() {
            let torn = [whole.as_slice(), &next.as_bytes()[..cut]].concat();
            fs::write(&path, torn).unwrap();
            let book = Book::open(folder.path(), Access::Append).unwrap();
            assert_eq!((tags(&book), book.torn), (vec!["t1"], cut as u64));
            // What comes after it is a line of its own.
            book.append(&image(3), Durable::Now).unwrap();
            drop(book);
            assert_eq!(tags(&Book::open(folder.path(), Access::Append).unwrap()), ["t1", "t3"]);
        }
    }

    #[test]
    fn damage_in_the_middle_is_told_and_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::open(folder.path(), Access::Append).unwrap();
        for number in 0..3 {
            book.append(&image(number), Durable::Now).unwrap();
        }
        drop(book);
        let path = folder.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = format!("{:#}", Book::open(folder.path(), Access::Append).unwrap_err());
        assert!(error.contains("damaged: line"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        // A format that is not known is not guessed at.
        fs::write(&path, line(&Entry::Ledger { version: 2, id: None }).unwrap()).unwrap();
        let error = format!("{:#}", Book::open(folder.path(), Access::Append).unwrap_err());
        assert!(error.contains("has format 2"), "{error}");
    }
}
