//! Repository names (OCI distribution spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest repository name, in bytes. The spec leaves it to implementations; 255 is what clients
/// assume together with a host name.
pub const NAME_BYTES_MAX: usize = 255;

/// A repository name such as `library/alpine`: lowercase components joined by slashes. It cannot hold
/// `..`, an empty component, a percent sign or a NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { found: text.len() });
        }
        for component in text.split('/') {
            check_component(component)?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for RepositoryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RepositoryName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Why a text is not a repository name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("repository name is empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("repository name has {found} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A leading, trailing or doubled slash.
    #[error(
        "repository name has an empty component: check for leading, trailing or doubled slashes"
    )]
    EmptyComponent,
    /// A character outside `a-z0-9._-`; typically an uppercase letter.
    #[error("repository name holds {0:?}: only a-z, 0-9, '.', '_', '-' and '/' are allowed")]
    Character(char),
    /// A separator at an end of a component, or a run such as `..` or `___`.
    #[error(
        "repository name has a misplaced separator: '.', '_', '__' or '-' must stand between letters or digits"
    )]
    Separator,
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` without a regular expression engine.
fn check_component(component: &str) -> Result<(), NameError> {
    if component.is_empty() {
        return Err(NameError::EmptyComponent);
    }
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if let Some(bad) =
        component.chars().find(|&c| !alphanumeric(c) && !matches!(c, '.' | '_' | '-'))
    {
        return Err(NameError::Character(bad));
    }
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return Err(NameError::Separator);
    }
    // What remains between letters and digits are the separator runs.
    let runs = component.split(alphanumeric).filter(|run| !run.is_empty());
    for run in runs {
        let dashes = run.bytes().all(|byte| byte == b'-');
        if !dashes && !matches!(run, "." | "_" | "__") {
            return Err(NameError::Separator);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn accepts_the_grammar() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for text in [
            "a",
            "0",
            "alpine",
            "library/alpine",
            "a/b/c/d/e",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "my.org/team_x/app--1",
            "127.0.0.1/x",
            &longest,
        ] {
            assert_eq!(text.parse::<RepositoryName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for text in [
            "", "/", "a/", "/a", "a//b", "A", "aB", "..", "../a", "a/..", "a/../b", ".a", "a.",
            "a..b", "a___b", "_a", "a_", "-a", "a-", "a._b", "a-_b", "a.-b", "a%2e%2eb", "%2e%2e",
            "a\0", "a\0b", "a b", "a\n", "é", "ａ", "a:b", "a@b", "a\\b", "a/.", "a/./b", "~a",
            "a+b", &too_long,
        ] {
            assert!(text.parse::<RepositoryName>().is_err(), "{text:?} was accepted");
        }
        assert_eq!("aX".parse::<RepositoryName>(), Err(NameError::Character('X')));
        assert_eq!(too_long.parse::<RepositoryName>(), Err(NameError::TooLong { found: 256 }));
    }
}
