//! Output for people. A reader that went away is no reason to fail.

use std::io::Write;

/// To standard output.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// To standard error.
pub(super) fn problem(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
