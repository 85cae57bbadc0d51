//! The ways in which a process is told to stop.

use std::io::{self, Read};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and returns its name together with the exit code of a process that
    /// it ends at once.
    pub(super) async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => ("SIGINT", 128 + SignalKind::interrupt().as_raw_value()),
        }
    }
}

/// Cancels `stop` when standard input ends, which it does when the parent that holds the other end
/// is gone, however it went.
pub(super) fn stop_with_parent(stop: CancellationToken) -> io::Result<()> {
    // A thread, because a read of standard input cannot be cancelled; it ends with the process.
    let watch = move || {
        let mut buffer = [0; 64];
        let mut input = io::stdin().lock();
        while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
        tracing::info!("the parent process is gone or says stop");
        stop.cancel();
    };
    std::thread::Builder::new().name("parent-watch".to_owned()).spawn(watch).map(drop)
}
