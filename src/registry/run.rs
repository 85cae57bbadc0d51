//! Work that has to come to its end although the client that asked for it may go away.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::RegistryError;
use crate::core::Core;

/// Runs `work` as a worker and waits for it. Dropping the wait does not drop the work.
pub(super) async fn to_the_end<F>(
    core: &Arc<Core>,
    name: &'static str,
    work: F,
) -> Result<F::Output, RegistryError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (done, wait) = oneshot::channel();
    core.workers.spawn(name, |_| async move {
        // Nobody may be waiting any more; the work was done all the same.
        let _ = done.send(work.await);
    });
    wait.await.map_err(|_| RegistryError::Unavailable("the replica is stopping".to_owned()))
}

/// Waits for `work`, and drives `reading`, which feeds it, as long as it needs that.
pub(super) async fn beside<T>(
    reading: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = reading => {}
    }
    work.await
}
