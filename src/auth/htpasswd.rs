//! The file of users: `name:hash` lines, as `htpasswd -B` writes them.

use std::collections::HashMap;
use std::fmt;

use super::bcrypt_hash::{BcryptHash, BcryptHashError};

/// Bytes of the largest file that is read.
pub(super) const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the longest user name.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// The users of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Htpasswd {
    users: HashMap<String, BcryptHash>,
}

impl Htpasswd {
    /// Reads the text of a file. Empty lines and lines that begin with `#` count for nothing; anything
    /// else that is not understood is an error, because a user that silently is not there is found out
    /// at night.
    ///
    /// # Errors
    /// [`LineError`] for the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem| LineError { line: number, problem };
            let (name, hash) = line.split_once(':').ok_or(wrong(LineProblem::NoColon))?;
            check_name(name).map_err(wrong)?;
            let hash = hash
                .parse()
                .map_err(|source| wrong(LineProblem::Hash { name: name.to_owned(), source }))?;
            if users.insert(name.to_owned(), hash).is_some() {
                return Err(wrong(LineProblem::Twice(name.to_owned())));
            }
        }
        Ok(Self { users })
    }

    /// The stored password of a user.
    pub(super) fn get(&self, name: &str) -> Option<&BcryptHash> {
        self.users.get(name)
    }

    /// How many users there are.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Every stored password.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &BcryptHash> {
        self.users.values()
    }
}

fn check_name(name: &str) -> Result<(), LineProblem> {
    let odd = name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.trim() != name
        || name.chars().any(char::is_control);
    if odd {
        return Err(LineProblem::Name);
    }
    // What these would mean in a log-in is decided: see `login.rs`.
    if name == "robot" || name.starts_with("robot$") {
        return Err(LineProblem::Reserved(name.to_owned()));
    }
    Ok(())
}

/// A line that is no user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: LineProblem,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.problem)
    }
}

/// What can be wrong with a line. No message repeats what stands behind the colon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Not `name:hash`.
    #[error("a line is name:hash, and there is no colon")]
    NoColon,
    /// A name nobody can log in with.
    #[error(
        "a user name has 1 to {NAME_BYTES_MAX} bytes, no control characters and no spaces around it"
    )]
    Name,
    /// A name that means a robot account.
    #[error("the user name `{0}` is reserved for [[access.robots]]; choose another")]
    Reserved(String),
    /// The same name again: which password counts would be a guess.
    #[error("the user `{0}` is there twice")]
    Twice(String),
    /// The hash does not count.
    #[error("user `{name}`: {source}")]
    Hash {
        /// Whose.
        name: String,
        /// Why.
        source: BcryptHashError,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuYI0t8Ie54pEp9GMVM4EbGPZI/Wd2XCm";

    fn refusal(text: &str) -> String {
        Htpasswd::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn users_comments_empty_lines_and_carriage_returns() {
        let text = format!("# ours\n\nalice:{HASH}\r\nbob@example.org:{HASH}\n");
        let users = Htpasswd::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.get("alice").is_some() && users.get("bob@example.org").is_some());
        assert!(users.get("Alice").is_none() && users.get("# ours").is_none());
        assert_eq!(Htpasswd::parse("").unwrap().len(), 0);
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_and_no_hash_is_repeated() {
        assert!(refusal(&format!("alice:{HASH}\nbob\n")).starts_with("2: a line is name:hash"));
        assert!(
            refusal(&format!("a:{HASH}\n\na:{HASH}\n"))
                .starts_with("3: the user `a` is there twice")
        );
        let text = refusal("alice:$apr1$salt$secret\n");
        assert!(text.starts_with("1: user `alice`: the hash is MD5"), "{text}");
        assert!(text.contains("htpasswd -B") && !text.contains("secret"), "{text}");
        assert!(refusal(&format!(":{HASH}")).starts_with("1: a user name has"));
        assert!(refusal(&format!(" a:{HASH}")).starts_with("1: a user name has"));
        assert!(refusal(&format!("{}:{HASH}", "a".repeat(256))).starts_with("1: a user name has"));
        assert!(refusal(&format!("robot$ci:{HASH}")).contains("[[access.robots]]"));
        assert!(refusal(&format!("robot:{HASH}")).contains("[[access.robots]]"));
        assert!(refusal(&format!("alice:{HASH}:extra")).contains("damaged"));
    }
}
