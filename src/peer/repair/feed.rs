//! The log as the repair queue: what has just been committed.

use std::collections::VecDeque;
use std::time::Duration;

use tercet_storage::Digest;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::TICK;
use super::shared::Shared;

/// A committed blob is usually being published here at that very moment, by the push itself.
const GRACE: Duration = Duration::from_secs(1);
/// Blobs in their grace period; more are left to the next comparison.
const GRACE_MAX: usize = 8_192;

pub(super) async fn run(shared: &Shared, mut committed: mpsc::Receiver<(Digest, u64)>) {
    // In the order of their commit.
    let mut in_grace: VecDeque<(Instant, Digest, u64)> = VecDeque::new();
    let mut is_open = true;
    loop {
        tokio::select! {
            commit = committed.recv(), if is_open => match commit {
                Some((digest, size)) if in_grace.len() < GRACE_MAX => {
                    in_grace.push_back((Instant::now() + GRACE, digest, size));
                }
                // The comparison finds it.
                Some(_) => shared.compare_by(Instant::now() + GRACE),
                None => is_open = false,
            },
            () = tokio::time::sleep(TICK) => {}
        }
        let now = Instant::now();
        let mut due = Vec::new();
        while in_grace.front().is_some_and(|(due, ..)| *due <= now) {
            due.extend(in_grace.pop_front().map(|(_, digest, size)| (digest, size)));
        }
        if !due.is_empty() && !shared.look_for(&shared.directory.members(), due).await {
            shared.compare_by(now + GRACE);
        }
    }
}
