//! Where the randomness of a run comes from.

use rand::random;

use crate::digest::sha256;

/// A seed that nobody chose. Small, so that it can be typed.
pub fn new_seed() -> u64 {
    u64::from(random::<u32>())
}

/// The seed of one scenario in the given round of a run of many, drawn from the run's own.
pub fn derived_seed(seed: u64, scenario: &str, round: u64) -> u64 {
    number(&format!("{seed} {scenario} {round}"))
}

/// The seed of a scenario's short form where a run has to be repeatable: always the same for a name.
pub fn fixed_seed(scenario: &str) -> u64 {
    number(scenario)
}

/// Small as well.
fn number(text: &str) -> u64 {
    let digest = sha256(text.as_bytes());
    let digits = digest.rsplit(':').next().and_then(|hex| hex.get(..8));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_differ_by_name_and_round_and_are_the_same_tomorrow() {
        let seeds: BTreeSet<u64> = [
            derived_seed(1, "a", 0),
            derived_seed(1, "a", 1),
            derived_seed(1, "b", 0),
            derived_seed(2, "a", 0),
            fixed_seed("a"),
            fixed_seed("b"),
        ]
        .into();
        assert_eq!(seeds.len(), 6);
        assert_eq!(derived_seed(1, "a", 0), derived_seed(1, "a", 0));
        assert_eq!(fixed_seed("kill-all"), 3_602_141_479);
    }
}
