//! The name somebody logs in with, and the account it means.

/// The user name under which Kubernetes service-account tokens come in as passwords.
pub(super) const KUBERNETES_USER: &str = "serviceaccount";

/// An account with a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Login {
    /// A user of the htpasswd file.
    User(String),
    /// A robot of the configuration.
    Robot(String),
}

impl Login {
    /// Reads user name and password; gives back the part of the password that is one.
    ///
    /// A robot logs in as `robot:NAME`. Basic authentication has no user names with a colon (RFC 7617
    /// section 2): what arrives is the user `robot` with the password `NAME:SECRET`. Some clients refuse
    /// the colon already at their prompt; for those there is `robot$NAME`.
    pub(super) fn of<'a>(user: &str, password: &'a str) -> (Self, &'a str) {
        if user == "robot"
            && let Some((name, secret)) = password.split_once(':')
        {
            return (Self::Robot(name.to_owned()), secret);
        }
        match user.strip_prefix("robot:").or_else(|| user.strip_prefix("robot$")) {
            Some(name) => (Self::Robot(name.to_owned()), password),
            None => (Self::User(user.to_owned()), password),
        }
    }

    /// The name without what tells its kind.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Robot(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn all_spellings_of_a_robot_mean_the_same() {
        let robot = Login::Robot("ci".to_owned());
        assert_eq!(Login::of("robot", "ci:se:cret"), (robot.clone(), "se:cret"));
        assert_eq!(Login::of("robot:ci", "se:cret"), (robot.clone(), "se:cret"));
        assert_eq!(Login::of("robot$ci", "se:cret"), (robot, "se:cret"));
        let user = |name: &str| Login::User(name.to_owned());
        assert_eq!(Login::of("alice", "a:b"), (user("alice"), "a:b"));
        assert_eq!(Login::of("robots", "a:b"), (user("robots"), "a:b"));
        assert_eq!(Login::of("robot", "no colon"), (user("robot"), "no colon"));
    }
}
