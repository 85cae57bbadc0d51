//! What must hold of whatever bytes a client, a peer or a disk hands to Tercet's parsers.
//!
//! Each function takes any bytes at all and asserts what is promised of them: nothing panics, what is
//! accepted is bounded and means the same when it is written and read again. `fuzz_targets/` puts
//! libFuzzer in front of them, `tests/corpus.rs` runs the committed corpus through them.
#![allow(clippy::expect_used, reason = "a failed expectation is what a fuzzer looks for")]

mod frame;
mod manifest;
mod mutate;
mod path;
mod range;
mod record;
mod reference;
mod seal;
mod snapshot;
mod token;

pub use frame::frame;
pub use manifest::manifest;
pub use mutate::Mutator;
pub use path::path;
pub use range::range;
pub use record::record;
pub use reference::reference;
pub use snapshot::snapshot;
pub use token::token;

/// What became of an input. A corpus of which nothing is taken tests little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody reads it.
    Taken,
    /// Nobody does.
    Refused,
}

impl Verdict {
    /// Whether any of several readers has taken it.
    fn any(taken: impl IntoIterator<Item = bool>) -> Self {
        if taken.into_iter().fold(false, |any, one| any | one) {
            Self::Taken
        } else {
            Self::Refused
        }
    }
}

/// A target: its name, which is that of its corpus folder, and its function.
pub type Target = (&'static str, fn(&[u8]) -> Verdict);

/// Every target.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("manifest", manifest),
    ("path", path),
    ("range", range),
    ("record", record),
    ("reference", reference),
    ("snapshot", snapshot),
    ("token", token),
];

/// The longest text of an error: it goes to a client and into a log line.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// An error has something to say, and repeats only so much of what it was given.
fn check_error(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty(), "an error without a word");
    assert!(text.len() <= ERROR_BYTES_MAX, "an error of {} bytes", text.len());
}
