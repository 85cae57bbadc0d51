//! How far a measurement is, for whoever watches.

use std::{
    io::{IsTerminal, Write as _},
    time::Duration,
};

const WIDTH: usize = 24;

/// A line on the standard error output that is written anew all the time; nothing if that is no terminal.
pub(super) struct Progress {
    terminal: bool,
    what: String,
}

impl Progress {
    /// Of one measurement.
    pub(super) fn new(what: String) -> Self {
        Self { terminal: std::io::stderr().is_terminal(), what }
    }

    /// `elapsed` of `length` is over (nothing in a warm-up), and operations were taken, of so many.
    pub(super) fn show(&self, elapsed: Option<Duration>, length: Duration, taken: (u64, u64)) {
        if self.terminal {
            put(&format!("\r\x1b[K{} {}", self.what, line(elapsed, length, taken)));
        }
    }

    /// Makes room for something else.
    pub(super) fn clear(&self) {
        if self.terminal {
            put("\r\x1b[K");
        }
    }
}

/// Whoever watched may be gone; that ends no measurement.
fn put(text: &str) {
    let mut error = std::io::stderr().lock();
    let _ = error.write_all(text.as_bytes()).and_then(|()| error.flush());
}

fn line(elapsed: Option<Duration>, length: Duration, (taken, most): (u64, u64)) -> String {
    let Some(elapsed) = elapsed else { return "warming up".to_owned() };
    let by_time = elapsed.as_secs_f64() / length.as_secs_f64().max(f64::MIN_POSITIVE);
    // Whichever of the two bounds comes first.
    let done = by_time.max(taken as f64 / most as f64).clamp(0.0, 1.0);
    let full = (done * WIDTH as f64) as usize;
    let (full, empty) = ("#".repeat(full), "-".repeat(WIDTH.saturating_sub(full)));
    format!("[{full}{empty}] {:.0} s, {taken} operations", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_the_bound_that_comes_first() {
        let second = Duration::from_secs(1);
        assert_eq!(line(None, second, (0, 1)), "warming up");
        let half = line(Some(5 * second), 10 * second, (7, u64::MAX));
        assert_eq!(half, format!("[{}{}] 5 s, 7 operations", "#".repeat(12), "-".repeat(12)));
        let full = line(Some(second), 10 * second, (9, 9));
        assert_eq!(full, format!("[{}] 1 s, 9 operations", "#".repeat(24)));
    }
}
