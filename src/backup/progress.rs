//! How far a long piece of work is: a bar on a terminal, a line now and then elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::text::bytes;

/// Time between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// Bytes of one piece of work. Threads share it.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    bar: ProgressBar,
    said: Mutex<Instant>,
}

impl Progress {
    /// At the start of `total` bytes.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let template = "{prefix} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        let said = Mutex::new(Instant::now());
        Self { what, total, done: AtomicU64::new(0), bar, said }
    }

    /// So many bytes further.
    pub(crate) fn advance(&self, count: u64) {
        let done = self.done.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        self.bar.set_position(done);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.bar.is_hidden() && said.elapsed() >= LINE_PAUSE {
            *said = Instant::now();
            let percent = done.saturating_mul(100).checked_div(self.total).unwrap_or(100);
            eprintln!("{} {} of {} ({percent} %)", self.what, bytes(done), bytes(self.total));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
