//! Content digests (OCI image spec, "Digests").

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A registered digest algorithm. The discriminants are part of the on-disk format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, the algorithm every implementation must support.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every supported algorithm, in the order of [`Digest`]'s `Ord`.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name used before the colon of a digest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal characters a digest of this algorithm has.
    #[must_use]
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    const fn tag(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            other => Err(DigestError::UnsupportedAlgorithm(clip(other))),
        }
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.name())
        } else {
            serializer.serialize_u8(self.tag())
        }
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            match u8::deserialize(deserializer)? {
                1 => Ok(Self::Sha256),
                2 => Ok(Self::Sha512),
                other => {
                    Err(D::Error::custom(format_args!("unknown digest algorithm tag {other}")))
                }
            }
        }
    }
}

/// The digest of some content. Only a well-formed digest of a supported algorithm can exist, so its
/// text is safe to build a path from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Sha256([u8; 32]),
    // Boxed because it is rare, and every error and map key that holds a digest would be twice as large.
    Sha512(Box<[u8; 64]>),
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = DigestHasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm before the colon.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Repr::Sha256(_) => Algorithm::Sha256,
            Repr::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The lowercase hexadecimal part after the colon.
    #[must_use]
    pub fn hex(&self) -> String {
        self.hex_in(&mut [0; HEX_MAX]).to_owned()
    }

    /// As [`Self::hex`], in this memory: a command is applied with ten keys of digests, and `hex::encode` builds its text
    /// letter by letter, which is seen in profiles.
    fn hex_in<'a>(&self, buffer: &'a mut [u8; HEX_MAX]) -> &'a str {
        let bytes = self.as_bytes();
        let letters = buffer.get_mut(..bytes.len() * 2).unwrap_or_default();
        // It is of the right length, and its letters are ASCII.
        let _ = hex::encode_to_slice(bytes, letters);
        std::str::from_utf8(letters).unwrap_or_default()
    }

    /// The raw hash value: 32 or 64 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Sha256(bytes) => bytes,
            Repr::Sha512(bytes) => bytes.as_slice(),
        }
    }

    fn from_raw(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        Some(Self(match algorithm {
            Algorithm::Sha256 => Repr::Sha256(bytes.try_into().ok()?),
            Algorithm::Sha512 => Repr::Sha512(Box::new(bytes.try_into().ok()?)),
        }))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, encoded) =
            text.split_once(':').ok_or_else(|| DigestError::MissingSeparator(clip(text)))?;
        let algorithm: Algorithm = algorithm.parse()?;
        if encoded.len() != algorithm.hex_len() {
            return Err(DigestError::WrongLength {
                algorithm,
                expected: algorithm.hex_len(),
                found: encoded.len(),
            });
        }
        // The `hex` crate accepts uppercase, the spec's grammar for these algorithms does not: two
        // spellings of one digest would be two cache keys and two paths.
        if !encoded.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::NotLowercaseHex { algorithm });
        }
        hex::decode(encoded)
            .ok()
            .and_then(|raw| Self::from_raw(algorithm, &raw))
            .ok_or(DigestError::NotLowercaseHex { algorithm })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().name())?;
        f.write_str(":")?;
        f.write_str(self.hex_in(&mut [0; HEX_MAX]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text in JSON; `(u8 algorithm, bytes)` in binary records.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.algorithm().tag())?;
        tuple.serialize_element(self.as_bytes())?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return String::deserialize(deserializer)?.parse().map_err(D::Error::custom);
        }
        let (algorithm, bytes) = <(Algorithm, Vec<u8>)>::deserialize(deserializer)?;
        Self::from_raw(algorithm, &bytes).ok_or_else(|| {
            D::Error::custom(format_args!("{algorithm} digest of {} bytes", bytes.len()))
        })
    }
}

/// An incremental hash of content that arrives in pieces.
#[derive(Clone)]
pub struct DigestHasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl DigestHasher {
    /// A hasher that has seen nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// The algorithm this hasher computes.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(hasher) => Repr::Sha256(hasher.finalize().into()),
            State::Sha512(hasher) => Repr::Sha512(Box::new(hasher.finalize().into())),
        })
    }
}

impl fmt::Debug for DigestHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DigestHasher({})", self.algorithm())
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon: typically a tag, or a bare hash without its algorithm.
    #[error("digest {0:?} has no algorithm: expected <algorithm>:<hex>")]
    MissingSeparator(String),
    /// The algorithm is unknown here.
    #[error("digest algorithm {0:?} is not supported: use sha256 or sha512")]
    UnsupportedAlgorithm(String),
    /// The encoded part is too short or too long, typically cut by copy and paste.
    #[error("{algorithm} digest needs {expected} hexadecimal characters, found {found}")]
    WrongLength {
        /// The algorithm named.
        algorithm: Algorithm,
        /// Characters required.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The encoded part has a character outside `0-9a-f`.
    #[error("{algorithm} digest must be lowercase hexadecimal")]
    NotLowercaseHex {
        /// The algorithm named.
        algorithm: Algorithm,
    },
}

/// Letters of the longest digest.
const HEX_MAX: usize = 128;
/// Text from outside goes into error messages and logs only up to this many characters.
const ECHO_CHARS_MAX: usize = 64;

fn clip(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints_known_digests() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        let parsed: Digest = EMPTY.parse().unwrap();
        assert_eq!(parsed, Digest::of(Algorithm::Sha256, b""));
        assert_eq!(parsed.hex().len(), 64);
        let long = Digest::of(Algorithm::Sha512, b"abc");
        assert!(long.to_string().starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
        assert_eq!(long.hex().len(), 128);
    }

    #[test]
    fn hasher_in_pieces_equals_hash_at_once() {
        let mut hasher = DigestHasher::new(Algorithm::Sha512);
        hasher.update(b"ab");
        let fork = hasher.clone();
        hasher.update(b"c");
        assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha512, b"abc"));
        assert_eq!(fork.finish(), Digest::of(Algorithm::Sha512, b"ab"));
    }

    #[test]
    fn refuses_everything_that_is_not_a_digest() {
        let hex64 = "a".repeat(64);
        let table: Vec<String> = vec![
            String::new(),
            ":".into(),
            "latest".into(),
            hex64.clone(),
            "sha256:".into(),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha256:{}", "a".repeat(65)),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}g", "a".repeat(63)),
            format!("sha256:{}/..", "a".repeat(61)),
            format!("sha256:../{}", "a".repeat(61)),
            format!("sha256:%2e%2e{}", "a".repeat(58)),
            format!("sha256:{}\0", "a".repeat(63)),
            format!("sha256:{}\n", "a".repeat(64)),
            format!(" sha256:{hex64}"),
            format!("SHA256:{hex64}"),
            format!("sha256+b64:{hex64}"),
            format!("sha512:{hex64}"),
            format!("sha384:{}", "a".repeat(96)),
            format!("md5:{}", "a".repeat(32)),
            format!("../sha256:{hex64}"),
            format!("sha256:sha256:{}", "a".repeat(57)),
            format!("sha256:{}", "é".repeat(32)),
        ];
        for text in table {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was accepted");
        }
        assert_eq!(
            format!("sha256:{}", "a".repeat(63)).parse::<Digest>(),
            Err(DigestError::WrongLength { algorithm: Algorithm::Sha256, expected: 64, found: 63 })
        );
    }

    #[test]
    fn error_text_is_bounded() {
        let error = "x".repeat(100_000).parse::<Digest>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn order_of_values_is_order_of_texts() {
        let mut digests: Vec<Digest> =
            (0..40_u8).map(|n| Digest::of(Algorithm::ALL[usize::from(n % 2)], &[n])).collect();
        digests.sort();
        let texts: Vec<String> = digests.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted());
    }

    #[test]
    fn json_is_text() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{EMPTY}\"")).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
    }
}
