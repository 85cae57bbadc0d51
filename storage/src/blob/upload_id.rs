//! Upload ids: random, and naming the replica that owns the session.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of an upload session: `<16 hex owner>-<32 hex random>`. It is not guessable, and any replica can
/// tell from it where to pass a request on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadId {
    owner: u64,
    random: u128,
}

impl UploadId {
    /// A new id owned by the replica `node_id`.
    #[must_use]
    pub fn new(node_id: u64) -> Self {
        Self { owner: node_id, random: rand::random() }
    }

    /// The Raft id of the replica that opened the session.
    #[must_use]
    pub fn owner(&self) -> u64 {
        self.owner
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:032x}", self.owner, self.random)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // One spelling only: the text is a path component and a map key.
        let hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let (owner, random) = text.split_once('-').ok_or(UploadIdError)?;
        if !hex(owner, 16) || !hex(random, 32) {
            return Err(UploadIdError);
        }
        Ok(Self {
            owner: u64::from_str_radix(owner, 16).map_err(|_| UploadIdError)?,
            random: u128::from_str_radix(random, 16).map_err(|_| UploadIdError)?,
        })
    }
}

impl Serialize for UploadId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UploadId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A text is no upload id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an upload id")]
pub struct UploadIdError;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn text_roundtrips_and_ids_differ() {
        let id = UploadId::new(0x1f_ffff_ffff_ffff);
        assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        assert_eq!(id.owner(), 0x1f_ffff_ffff_ffff);
        assert_ne!(id, UploadId::new(id.owner()));
        assert_eq!(id.to_string().len(), 49);
    }

    #[test]
    fn refuses_other_texts() {
        let good = UploadId::new(1).to_string();
        for text in [
            String::new(),
            "-".into(),
            "..".into(),
            good.to_uppercase() + "A",
            format!("{good}0"),
            format!("+{}", &good[1..]),
            good.replace('-', "_"),
            good.replace('-', "/"),
            format!("../{good}"),
            format!("{}\0", &good[..48]),
            "A".repeat(16) + "-" + &"0".repeat(32),
        ] {
            assert!(text.parse::<UploadId>().is_err(), "{text:?} was accepted");
        }
    }
}
