//! Who a request comes from, once that is proved.

use std::fmt;

/// The one who asks. Only a check of credentials makes one that is not anonymous.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody said who they are.
    Anonymous,
    /// A user of the htpasswd file.
    User(String),
    /// An entry of `[[access.robots]]`, without the prefix `robot:`.
    Robot(String),
    /// A Kubernetes service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The common name of a client certificate that `client_ca` vouches for.
    Certificate(String),
}

/// As rules and the audit log write it: `user:alice`, `serviceaccount:ci/builder`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Robot(name) => write!(f, "robot:{name}"),
            Self::ServiceAccount { namespace, name } => {
                write!(f, "serviceaccount:{namespace}/{name}")
            }
            Self::Certificate(name) => write!(f, "certificate:{name}"),
        }
    }
}
