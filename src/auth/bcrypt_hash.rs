//! A stored password: a bcrypt hash whose form and cost were checked when it was read.

use std::fmt;
use std::str::FromStr;

/// Cheapest hash that is accepted; bcrypt's own least.
pub const COST_MIN: u32 = 4;
/// Dearest hash that is accepted: each log-in with it takes about two seconds of one core.
pub const COST_MAX: u32 = 15;
/// bcrypt looks at no more than this many bytes, so a longer password would be two passwords that
/// both work. Such are refused.
pub const PASSWORD_BYTES_MAX: usize = 72;
/// What a hash looks like: `$2b$10$`, 22 characters of salt and 31 of the hash.
const SCHEMES: [&str; 3] = ["$2a$", "$2b$", "$2y$"];

/// A bcrypt hash. Nothing that prints shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct BcryptHash {
    text: String,
    cost: u32,
}

impl BcryptHash {
    /// A hash that no password has, as dear to check as a real one of that cost. Who logs in with a
    /// name that does not exist waits as long as with one that does.
    pub(super) fn of_nobody(cost: u32) -> Self {
        Self { text: format!("$2b${cost:02}${}", ".".repeat(53)), cost }
    }

    /// Binary logarithm of the rounds.
    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// The hash as text, to tell one from another.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the hash of `password`. Takes long, on purpose: not for a thread of the runtime.
    pub(super) fn matches(&self, password: &str) -> bool {
        password.len() <= PASSWORD_BYTES_MAX
            && !password.contains('\0')
            && bcrypt::verify(password, &self.text).unwrap_or(false)
    }
}

impl FromStr for BcryptHash {
    type Err = BcryptHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(BcryptHashError::Scheme(scheme_of(text)));
        }
        let parts: bcrypt::HashParts = text.parse().map_err(|_| BcryptHashError::Malformed)?;
        let cost = parts.get_cost();
        if !(COST_MIN..=COST_MAX).contains(&cost) {
            return Err(BcryptHashError::Cost(cost));
        }
        Ok(Self { text: text.to_owned(), cost })
    }
}

impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<bcrypt hash of cost {}>", self.cost)
    }
}

/// Why a text is no hash that counts here. None of these messages repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BcryptHashError {
    /// Typically `htpasswd` without `-B`, which writes MD5.
    #[error("{0}; only bcrypt is accepted: write it with `htpasswd -B`")]
    Scheme(&'static str),
    /// The right beginning, and then not 53 characters of salt and hash.
    #[error("the bcrypt hash is damaged: it needs $2y$, two digits, $ and 53 characters")]
    Malformed,
    /// Too cheap to protect, or so dear that checking it is an attack on ourselves.
    #[error("the bcrypt cost is {0}; use {COST_MIN} to {COST_MAX}, 10 if in doubt")]
    Cost(u32),
}

fn scheme_of(text: &str) -> &'static str {
    if text.is_empty() {
        "there is no hash"
    } else if text.starts_with("$apr1$") || text.starts_with("$1$") {
        "the hash is MD5"
    } else if text.starts_with("{SHA}") {
        "the hash is SHA-1"
    } else if text.starts_with("$5$") || text.starts_with("$6$") {
        "the hash is SHA-crypt"
    } else if text.starts_with("$argon2") {
        "the hash is Argon2"
    } else {
        "this is no bcrypt hash"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn parse(text: &str) -> Result<BcryptHash, BcryptHashError> {
        text.parse()
    }

    #[test]
    fn every_name_of_bcrypt_is_read_and_compared() {
        let hash = bcrypt::hash("wonderland", 4).unwrap();
        for scheme in SCHEMES {
            let stored = parse(&hash.replacen("$2b$", scheme, 1)).unwrap();
            assert!(stored.matches("wonderland"), "{scheme}");
            assert!(!stored.matches("wonderlan"), "{scheme}");
        }
    }

    #[test]
    fn other_schemes_damaged_hashes_and_unreasonable_costs_are_refused() {
        let hash = bcrypt::hash("x", 4).unwrap();
        for other in
            ["", "$apr1$a$b", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "$6$a$b", "plain", "$2x$04$"]
        {
            assert!(matches!(parse(other), Err(BcryptHashError::Scheme(_))), "{other}");
        }
        for damaged in [&hash[..59], &format!("{hash}."), &hash.replace(&hash[10..12], "é")] {
            assert_eq!(parse(damaged), Err(BcryptHashError::Malformed), "{damaged}");
        }
        assert_eq!(parse(&hash.replace("$04$", "$16$")), Err(BcryptHashError::Cost(16)));
        assert_eq!(parse(&hash.replace("$04$", "$03$")), Err(BcryptHashError::Cost(3)));
        assert_eq!(parse(&hash.replace("$04$", "$31$")), Err(BcryptHashError::Cost(31)));
    }

    #[test]
    fn what_bcrypt_would_cut_off_is_refused() {
        let long = "a".repeat(PASSWORD_BYTES_MAX);
        let stored = parse(&bcrypt::hash(&long, 4).unwrap()).unwrap();
        assert!(stored.matches(&long));
        assert!(!stored.matches(&format!("{long}b")));
        assert!(!parse(&bcrypt::hash("ab", 4).unwrap()).unwrap().matches("ab\0cd"));
    }

    #[test]
    fn the_hash_of_nobody_is_one_and_matches_nothing() {
        let nobody = BcryptHash::of_nobody(4);
        assert_eq!(parse(nobody.as_str()).unwrap(), nobody);
        assert!(!nobody.matches("") && !nobody.matches("password"));
        assert!(!format!("{nobody:?}").contains("..."), "{nobody:?}");
    }
}
