//! How many bytes repair may move in a second: clients come first.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// What one token stands for. Coarse, because the limiter counts the time for one token in whole
/// nanoseconds.
const TOKEN_BYTES: u64 = 1024;
/// Ten gigabytes a second: more than that is no bound.
const TOKENS_MAX: u64 = 10 * 1024 * 1024;

/// A token bucket that holds what flows in one second. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None without a bound.
    limiter: Option<DefaultDirectRateLimiter>,
    /// Most tokens that can be had at once.
    burst: NonZeroU32,
    bytes_per_second: u64,
    taken: AtomicU64,
}

impl Budget {
    /// A budget of `bytes_per_second`; 0 means no bound.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        let tokens = (bytes_per_second / TOKEN_BYTES).clamp(1, TOKENS_MAX);
        let burst = u32::try_from(tokens).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let limiter = (bytes_per_second > 0).then(|| RateLimiter::direct(Quota::per_second(burst)));
        let inner = Inner { limiter, burst, bytes_per_second, taken: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until `bytes` may flow.
    pub async fn take(&self, bytes: u64) {
        self.inner.taken.fetch_add(bytes, Ordering::Relaxed);
        let Some(limiter) = &self.inner.limiter else { return };
        let mut tokens = bytes.div_ceil(TOKEN_BYTES);
        while tokens > 0 {
            let part = tokens.min(u64::from(self.inner.burst.get()));
            let Some(part) = u32::try_from(part).ok().and_then(NonZeroU32::new) else { return };
            // An error says that the part is larger than the bucket, which it is not.
            let _ = limiter.until_n_ready(part).await;
            tokens -= u64::from(part.get());
        }
    }

    /// Bytes that were asked for so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.inner.taken.load(Ordering::Relaxed)
    }

    /// How long `bytes` may take when `sharers` use the budget, at most; zero without a bound.
    #[must_use]
    pub fn time_for(&self, bytes: u64, sharers: u64) -> Duration {
        if self.inner.limiter.is_none() {
            return Duration::ZERO;
        }
        let rate = self.inner.bytes_per_second.max(TOKEN_BYTES);
        Duration::from_secs(bytes.saturating_mul(sharers).div_ceil(rate))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn more_than_the_bucket_holds_waits_for_the_rest() {
        let budget = Budget::new(64 * 1024);
        // The bucket is full at first, so half of it is free and half has to flow in.
        let began = std::time::Instant::now();
        budget.take(128 * 1024).await;
        // A bound from below is no measure of speed: it cannot come sooner.
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        assert_eq!(budget.taken(), 128 * 1024);
    }

    #[tokio::test]
    async fn every_rate_works() {
        for rate in [1, 1023, 1024, 64 * 1024 * 1024, u64::MAX] {
            let budget = Budget::new(rate);
            budget.take(0).await;
            budget.take(1).await;
            assert_eq!(budget.taken(), 1, "{rate}");
        }
        let free = Budget::new(0);
        free.take(u64::MAX / 2).await;
        assert_eq!(free.time_for(u64::MAX, 2), Duration::ZERO);
    }

    #[test]
    fn time_is_counted_for_all_who_share() {
        assert_eq!(Budget::new(1024).time_for(10 * 1024, 2), Duration::from_secs(20));
    }
}
