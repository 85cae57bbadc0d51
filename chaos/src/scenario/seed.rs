//! Where the randomness of a run comes from.

use rand::random;

/// A seed that nobody chose. Small, so that it can be typed.
pub fn new_seed() -> u64 {
    u64::from(random::<u32>())
}
