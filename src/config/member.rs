//! One entry of `cluster.members`: `name=url`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A replica that is there from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberEntry {
    /// Its `node.name`.
    pub name: String,
    /// Base URL of its peer listener, without a slash at the end.
    pub address: String,
}

impl FromStr for MemberEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, address)) = text.split_once('=') else {
            return Err(format!(
                "`{text}` is not a member; write it as name=url, for example \
                 tercet-0=http://127.0.0.1:5001"
            ));
        };
        let (name, address) = (name.trim(), address.trim().trim_end_matches('/'));
        super::check::replica_name(name)?;
        super::check::peer_url(address)?;
        Ok(Self { name: name.to_owned(), address: address.to_owned() })
    }
}

impl fmt::Display for MemberEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.address)
    }
}

impl Serialize for MemberEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemberEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
