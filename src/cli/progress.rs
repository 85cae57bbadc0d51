//! What a command waits for.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::print;

/// Between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// One line about what is being waited for: it changes in place on a terminal, and is written anew
/// elsewhere.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last: String,
}

impl Progress {
    /// Begins with a text.
    pub(super) fn new(text: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        let mut progress = Self { bar, last: String::new() };
        progress.set(text);
        progress
    }

    /// Says what is waited for now.
    pub(super) fn set(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => print::problem(text),
        }
    }

    /// Ends with a sentence on standard output.
    pub(super) fn done(self, text: &str) {
        self.clear();
        print::line(text);
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
