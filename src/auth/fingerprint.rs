//! Keys of caches that must not hold secrets.

use jsonwebtoken::{Algorithm, EncodingKey};

/// Makes an HMAC-SHA-256 with a key that this process drew and nobody else knows. A copy of the
/// memory with such a value in it does not help to guess a password.
pub(super) struct Fingerprints {
    key: EncodingKey,
}

/// What stands for a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(String);

impl Fingerprints {
    /// With a new random key.
    pub(super) fn new() -> Self {
        Self { key: EncodingKey::from_secret(&rand::random::<[u8; 32]>()) }
    }

    /// The fingerprint of these texts in this order. `None` is a failure of the cryptography below;
    /// then nothing is cached.
    pub(super) fn of(&self, parts: &[&str]) -> Option<Fingerprint> {
        let mut message = Vec::new();
        for part in parts {
            // With the lengths, so that `ab`,`c` differs from `a`,`bc`.
            message.extend_from_slice(&(part.len() as u64).to_le_bytes());
            message.extend_from_slice(part.as_bytes());
        }
        jsonwebtoken::crypto::sign(&message, &self.key, Algorithm::HS256).ok().map(Fingerprint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn equal_texts_and_only_those_have_equal_fingerprints() {
        let fingerprints = Fingerprints::new();
        let of = |parts: &[&str]| fingerprints.of(parts).unwrap();
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab", "c"]), Fingerprints::new().of(&["ab", "c"]).unwrap());
    }
}
