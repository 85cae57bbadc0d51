//! Blocking work on a value, such that a caller that goes away in the middle breaks nothing.

use tokio::task::JoinHandle;

use crate::error::StorageError;

/// Owns a value that is lent to one blocking task at a time. When the future that waits for the task is
/// dropped, which happens whenever a client disconnects, the task still ends and the value comes back: the
/// next call waits for it first.
#[derive(Debug)]
pub(super) struct Lent<T> {
    here: Option<T>,
    away: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Lent<T> {
    pub(super) fn new(value: T) -> Self {
        Self { here: Some(value), away: None }
    }

    /// Runs `work` on the value in a blocking task.
    pub(super) async fn run<R: Send + 'static>(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&mut T) -> Result<R, StorageError> + Send + 'static,
    ) -> Result<R, StorageError> {
        self.settle(operation).await?;
        let cancelled = || StorageError::Cancelled { operation };
        let mut value = self.here.take().ok_or_else(cancelled)?;
        let (send, receive) = tokio::sync::oneshot::channel();
        self.away = Some(tokio::task::spawn_blocking(move || {
            // Nobody listens any more if the caller went away.
            send.send(work(&mut value)).ok();
            value
        }));
        self.settle(operation).await?;
        receive.await.map_err(|_| cancelled())?
    }

    /// Waits for a task that an abandoned call left behind.
    pub(super) async fn settle(&mut self, operation: &'static str) -> Result<(), StorageError> {
        if let Some(away) = &mut self.away {
            let value = away.await;
            self.away = None;
            self.here = Some(value.map_err(|_| StorageError::Cancelled { operation })?);
        }
        Ok(())
    }

    /// Gives the value away for good.
    pub(super) async fn take(mut self, operation: &'static str) -> Result<T, StorageError> {
        self.settle(operation).await?;
        self.here.take().ok_or(StorageError::Cancelled { operation })
    }
}

/// Runs `work` in a blocking task.
pub(super) async fn blocking<R: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<R, StorageError> + Send + 'static,
) -> Result<R, StorageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StorageError::Cancelled { operation })?
}
