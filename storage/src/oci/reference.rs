//! Tags, and references that are either a tag or a digest (OCI distribution spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{Digest, DigestError};

/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > TAG_BYTES_MAX {
            return Err(ReferenceError::TagTooLong { found: text.len() });
        }
        let mut bytes = text.bytes();
        let first = bytes.next().ok_or(ReferenceError::Empty)?;
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if word(first) && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::TagCharacters)
        }
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// How a request names a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// By a name that may move.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A tag cannot hold a colon and a digest must.
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => fmt::Display::fmt(tag, f),
            Self::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

/// Why a text is neither a tag nor a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing at all.
    #[error("reference is empty")]
    Empty,
    /// Longer than [`TAG_BYTES_MAX`].
    #[error("tag has {found} bytes, at most {TAG_BYTES_MAX} are allowed")]
    TagTooLong {
        /// Bytes found.
        found: usize,
    },
    /// A character the grammar does not allow, or a leading `.` or `-`.
    #[error(
        "tag must start with a letter, digit or '_' and hold only letters, digits, '.', '_' and '-'"
    )]
    TagCharacters,
    /// It has a colon, so it was read as a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn accepts_tags() {
        let longest = "t".repeat(TAG_BYTES_MAX);
        for text in ["latest", "v1.2.3", "_x", "A-B_c.d", "0", "a..b", &longest] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_tag() {
        let too_long = "t".repeat(TAG_BYTES_MAX + 1);
        for text in [
            "", ".", "..", "../x", "-a", ".a", "a/b", "a%2e", "a\0", "a b", "é", "a:b", "a+b",
            "a\n", &too_long,
        ] {
            assert!(text.parse::<Tag>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn reference_is_a_digest_if_and_only_if_it_has_a_colon() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!(digest.parse().unwrap(), Reference::Digest(_)));
        assert!(matches!("latest".parse().unwrap(), Reference::Tag(_)));
        assert!("sha256:00".parse::<Reference>().is_err());
        assert!("a:b".parse::<Reference>().is_err());
        assert_eq!(digest.parse::<Reference>().unwrap().to_string(), digest);
    }
}
