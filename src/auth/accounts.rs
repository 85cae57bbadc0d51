//! Everybody who has a password here: users of the file, robots of the configuration.

use std::io;
use std::path::{Path, PathBuf};

use super::bcrypt_hash::BcryptHash;
use super::htpasswd::{FILE_BYTES_MAX, Htpasswd, LineError};
use super::login::{KUBERNETES_USER, Login};
use super::principal::Principal;
use super::robots::Robots;
use crate::config::Access;

/// Cost of the check for a name that does not exist, when no account tells a better one.
const USUAL_COST: u32 = 10;

/// Users and robots, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Htpasswd,
    robots: Robots,
    /// Cost of the dearest hash among them.
    dearest: Option<u32>,
}

impl Accounts {
    /// Reads the htpasswd file, if one is configured, and the robots.
    ///
    /// # Errors
    /// [`AccountsError`], which names file and line, or the entry.
    pub fn load(access: &Access) -> Result<Self, AccountsError> {
        let text = access.htpasswd.as_deref().map(read).transpose()?;
        Self::of(access, text.as_deref())
    }

    /// The same with the file's content at hand.
    pub(super) fn of(access: &Access, htpasswd: Option<&str>) -> Result<Self, AccountsError> {
        let path = || access.htpasswd.clone().unwrap_or_default();
        let users = Htpasswd::parse(htpasswd.unwrap_or_default())
            .map_err(|line| AccountsError::Line { path: path(), line })?;
        if access.kubernetes.enabled && users.get(KUBERNETES_USER).is_some() {
            return Err(AccountsError::KubernetesUser { path: path() });
        }
        let robots = Robots::compile(&access.robots).map_err(AccountsError::Robots)?;
        let dearest = users.hashes().chain(robots.hashes()).map(BcryptHash::cost).max();
        Ok(Self { users, robots, dearest })
    }

    /// Whose password it would be, and the stored one. `None` for a name that does not exist and for a
    /// robot that has expired.
    pub(super) fn find(&self, login: &Login, now_ms: u64) -> Option<(Principal, &BcryptHash)> {
        match login {
            Login::User(name) => Some((Principal::User(name.clone()), self.users.get(name)?)),
            Login::Robot(name) => {
                Some((Principal::Robot(name.clone()), self.robots.get(name, now_ms)?))
            }
        }
    }

    /// Whether the one for whom a token was made still exists.
    pub(super) fn knows(&self, principal: &Principal, now_ms: u64) -> bool {
        match principal {
            Principal::User(name) => self.users.get(name).is_some(),
            Principal::Robot(name) => self.robots.get(name, now_ms).is_some(),
            // Their word is somebody else's: the API server's, an authority's.
            Principal::Anonymous | Principal::ServiceAccount { .. } | Principal::Certificate(_) => {
                true
            }
        }
    }

    /// How many users and robots there are.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.users.len(), self.robots.len())
    }

    /// What a log-in with an unknown name is checked against: as dear as the dearest real account.
    pub(super) fn nobody(&self) -> BcryptHash {
        BcryptHash::of_nobody(self.dearest.unwrap_or(USUAL_COST))
    }
}

/// Reads the file, up to its bound.
pub(super) fn read(path: &Path) -> Result<String, AccountsError> {
    use std::io::Read;
    let failed = |source| AccountsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    String::from_utf8(bytes)
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "not UTF-8")))
}

/// Accounts that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The htpasswd file cannot be read; typically a wrong path or missing permissions.
    #[error("access.htpasswd: cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of it is no user.
    #[error("{}:{line}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        line: LineError,
    },
    /// The name under which Kubernetes tokens come in is taken.
    #[error(
        "{}: the user `{KUBERNETES_USER}` cannot exist while access.kubernetes.enabled is true: that \
         name means a Kubernetes token",
        path.display()
    )]
    KubernetesUser {
        /// The file.
        path: PathBuf,
    },
    /// Entries of `[[access.robots]]` are wrong.
    #[error("{}", .0.join("; "))]
    Robots(Vec<String>),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const HASH: &str = "$2y$06$abcdefghijklmnopqrstuuYI0t8Ie54pEp9GMVM4EbGPZI/Wd2XCm";

    #[test]
    fn a_wrong_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let access = Access { htpasswd: Some(path.clone()), ..Access::default() };
        let missing = Accounts::load(&access).unwrap_err().to_string();
        assert!(missing.contains("cannot read") && missing.contains("users"), "{missing}");
        std::fs::write(&path, format!("a:{HASH}\nb:plain\n")).unwrap();
        let wrong = Accounts::load(&access).unwrap_err().to_string();
        assert!(wrong.starts_with(&format!("{}:2: user `b`", path.display())), "{wrong}");
        std::fs::write(&path, [0xff, b':']).unwrap();
        assert!(Accounts::load(&access).unwrap_err().to_string().contains("not UTF-8"));
    }

    #[test]
    fn the_name_of_kubernetes_tokens_is_not_a_user_then() {
        let mut access = Access { htpasswd: Some("users".into()), ..Access::default() };
        let text = format!("{KUBERNETES_USER}:{HASH}");
        assert!(Accounts::of(&access, Some(&text)).is_ok());
        access.kubernetes.enabled = true;
        assert!(Accounts::of(&access, Some(&text)).is_err());
    }

    #[test]
    fn nobody_costs_what_the_dearest_costs() {
        assert_eq!(Accounts::default().nobody().cost(), USUAL_COST);
        let accounts = Accounts::of(&Access::default(), Some(&format!("a:{HASH}"))).unwrap();
        assert_eq!(accounts.nobody().cost(), 6);
    }
}
