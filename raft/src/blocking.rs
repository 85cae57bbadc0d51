//! Work that may wait for a disk, away from the threads that serve others.

use std::io;

/// Runs `work` on a thread of its own; an error if it panics or the runtime ends.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    #[cfg(feature = "simulation")]
    if crate::simulation::is_on() {
        // A second thread would bring the order of events in which no seed repeats.
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
