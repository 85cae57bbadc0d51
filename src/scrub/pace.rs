//! How fast the disk is read for nobody in particular.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// The limiter counts kibibytes: bytes would not fit into its numbers.
const UNIT: u64 = 1_024;
/// A chunk of 1 MiB has to fit into the burst.
const BURST_MIN: u32 = 1_024;

/// A bound in bytes per second.
#[derive(Debug)]
pub(super) struct Pace {
    limiter: DefaultDirectRateLimiter,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let rate = u32::try_from(bytes_per_second / UNIT).unwrap_or(u32::MAX);
        let rate = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(rate.get().max(BURST_MIN)).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)) }
    }

    /// Waits until so many bytes may have been read.
    pub(super) async fn take(&self, bytes: usize) {
        let units = u32::try_from((bytes as u64).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = NonZeroU32::new(units.min(BURST_MIN)).unwrap_or(NonZeroU32::MIN);
        // Cannot fail: no chunk is larger than the burst.
        let _ = self.limiter.until_n_ready(units).await;
    }
}
