//! TLS on the listeners of real processes, with certificates made here and clients that insist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod authority;
mod clients;
mod identity;
mod listeners;
mod loopback;
mod process;
mod reload;
mod stalls;
mod start;

use std::time::Duration;

/// Far beyond what anything here takes.
const HANG: Duration = Duration::from_secs(60);

/// Waits until `look` returns something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < HANG, "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
