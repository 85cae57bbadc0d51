//! Words for whoever watches.
//!
//! Whoever reads them may be gone, as a CI that has given up. The macros of the standard library panic then, in the middle of
//! a clean-up too; here the words are lost, and nothing else is.

use std::{
    panic::catch_unwind,
    sync::atomic::{AtomicBool, Ordering},
};

/// Noticed once for each: every panic that is caught says so itself.
static OUTPUT_IS_GONE: AtomicBool = AtomicBool::new(false);
static ERRORS_ARE_GONE: AtomicBool = AtomicBool::new(false);

/// A line on the standard output.
pub fn say(line: &str) {
    // The macro, not the stream: what a test prints is shown with it.
    unless_gone(&OUTPUT_IS_GONE, || println!("{line}"));
}

/// A line on the standard error output.
pub fn warn(line: &str) {
    unless_gone(&ERRORS_ARE_GONE, || eprintln!("{line}"));
}

fn unless_gone(gone: &AtomicBool, print: impl Fn() + std::panic::UnwindSafe) {
    if !gone.load(Ordering::Relaxed) && catch_unwind(print).is_err() {
        gone.store(true, Ordering::Relaxed);
    }
}
