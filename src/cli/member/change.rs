//! Makes a change and stays with it until it is done.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::admin::member::{BUSY, MemberAnswer};
use crate::cli::admin::AdminClient;
use crate::cli::print;
use crate::cli::progress::Progress;
use crate::exit::{Exit, Failure};
use crate::ops::status::Status;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a command stays with a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    end: Option<Instant>,
}

impl Patience {
    /// For so many seconds; without, as long as it takes.
    pub(super) fn of(seconds: Option<u64>) -> Self {
        let end =
            seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Self { end }
    }

    /// Waits for the next look.
    pub(super) async fn pause(self, waiting_for: &str) -> Result<(), Failure> {
        if self.end.is_some_and(|end| Instant::now() >= end) {
            let message =
                format!("not done in time: {waiting_for}. The same command goes on from here");
            return Err(Failure::new(Exit::Unavailable, message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

/// Asks for a change until it is not refused for the moment only.
pub(super) async fn insist<B: Serialize + Sync>(
    client: &AdminClient,
    path: &str,
    body: &B,
    progress: &mut Progress,
    patience: Patience,
) -> Result<MemberAnswer, Failure> {
    loop {
        match client.change::<B, MemberAnswer>(path, body).await? {
            Ok(answer) => return Ok(answer),
            Err(refusal) if refusal.body.code == BUSY => {
                progress.set(&refusal.body.message);
                patience.pause(&refusal.body.message).await?;
            }
            Err(refusal) => return Err(refusal.into_failure()),
        }
    }
}

/// The members as the leader knows them.
pub(super) async fn status(client: &AdminClient) -> Result<Status, Failure> {
    client.get_json("/admin/leader/members").await
}

/// Looks at the members until `judge` has nothing more to wait for. A moment without a leader is waited
/// out.
pub(super) async fn wait(
    client: &AdminClient,
    progress: &mut Progress,
    patience: Patience,
    judge: impl Fn(&Status) -> Option<String>,
) -> Result<(), Failure> {
    loop {
        let waiting_for = match status(client).await {
            Ok(status) => match judge(&status) {
                None => return Ok(()),
                Some(waiting_for) => waiting_for,
            },
            Err(failure) if failure.exit == Exit::Unavailable => failure.to_string(),
            Err(failure) => return Err(failure),
        };
        progress.set(&waiting_for);
        patience.pause(&waiting_for).await?;
    }
}

/// Prints what an operator should know.
pub(super) fn warn(answer: &MemberAnswer) {
    for warning in &answer.warnings {
        print::problem(&format!("warning: {warning}"));
    }
}
