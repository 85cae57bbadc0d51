//! `[[access.robots]]`: accounts of machines, which may end by themselves.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;

use super::bcrypt_hash::BcryptHash;
use crate::config::Robot;

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 128;

/// The robots of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Robots {
    robots: HashMap<String, Account>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    hash: BcryptHash,
    /// Milliseconds since the Unix epoch.
    expires_ms: Option<u64>,
}

impl Robots {
    /// Checks the entries of the configuration. An expiry in the past is none of a mistake: the account
    /// just does not work.
    ///
    /// # Errors
    /// One sentence for each entry that is wrong.
    pub fn compile(entries: &[Robot]) -> Result<Self, Vec<String>> {
        let mut robots = HashMap::new();
        let mut problems = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let place = format!("access.robots[{index}] (`{}`)", entry.name);
            match account(entry) {
                Ok(account) => {
                    if robots.insert(entry.name.clone(), account).is_some() {
                        problems.push(format!("{place}: the name is there twice"));
                    }
                }
                Err(problem) => problems.push(format!("{place}: {problem}")),
            }
        }
        if problems.is_empty() { Ok(Self { robots }) } else { Err(problems) }
    }

    /// The stored secret of a robot that exists and has not expired at `now_ms`.
    pub(super) fn get(&self, name: &str, now_ms: u64) -> Option<&BcryptHash> {
        let account = self.robots.get(name)?;
        let lives = account.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms);
        lives.then_some(&account.hash)
    }

    /// How many there are, expired ones included.
    pub(super) fn len(&self) -> usize {
        self.robots.len()
    }

    /// Every stored secret.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &BcryptHash> {
        self.robots.values().map(|account| &account.hash)
    }
}

fn account(entry: &Robot) -> Result<Account, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let named = (1..=NAME_BYTES_MAX).contains(&entry.name.len()) && entry.name.bytes().all(good);
    if !named {
        return Err(format!(
            "name: use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` and `/`"
        ));
    }
    let hash = entry.secret_bcrypt.parse().map_err(|error| format!("secret_bcrypt: {error}"))?;
    let expires_ms = entry.expires.as_deref().map(expiry).transpose()?;
    Ok(Account { hash, expires_ms })
}

fn expiry(text: &str) -> Result<u64, String> {
    let time: Timestamp = text
        .parse()
        .map_err(|_| format!("expires: `{text}` is no time; write it as 2027-01-31T00:00:00Z"))?;
    // Before 1970 is long ago.
    Ok(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuYI0t8Ie54pEp9GMVM4EbGPZI/Wd2XCm";

    fn robot(name: &str, expires: Option<&str>) -> Robot {
        Robot {
            name: name.to_owned(),
            secret_bcrypt: HASH.to_owned(),
            expires: expires.map(str::to_owned),
        }
    }

    #[test]
    fn a_robot_ends_at_the_millisecond_it_expires() {
        let robots = Robots::compile(&[
            robot("ci", Some("2026-11-22T10:00:00Z")),
            robot("west", Some("2026-11-22T05:00:00-05:00")),
            robot("for/ever", None),
        ])
        .unwrap();
        let ten = 1_795_341_600_000;
        for name in ["ci", "west"] {
            assert!(robots.get(name, ten - 1).is_some(), "{name}");
            assert!(robots.get(name, ten).is_none(), "{name}");
        }
        assert!(robots.get("for/ever", u64::MAX).is_some());
        assert!(robots.get("nobody", 0).is_none());
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_without_the_secret() {
        let mut wrong_secret = robot("b", None);
        wrong_secret.secret_bcrypt = "hunter2".to_owned();
        let problems = Robots::compile(&[
            robot("a", None),
            robot("a", None),
            wrong_secret,
            robot("no:colon", None),
            robot("c", Some("next week")),
            robot("d", Some("2026-11-22")),
        ])
        .unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems[0].starts_with("access.robots[1] (`a`): the name is there twice"));
        assert!(
            problems[1].starts_with("access.robots[2] (`b`): secret_bcrypt: this is no bcrypt")
        );
        assert!(problems[2].starts_with("access.robots[3] (`no:colon`): name: "));
        assert!(problems[3].contains("expires: `next week` is no time; write it as"));
        assert!(!problems.join(" ").contains("hunter2"));
    }
}
