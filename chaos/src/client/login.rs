//! Who a client says it is.

use std::{fmt, sync::Arc};

use crate::users::User;

/// A name and a password, sent with every request.
#[derive(Clone)]
pub struct Login {
    pub(super) name: Arc<str>,
    pub(super) password: Arc<str>,
}

impl Login {
    /// Of anybody.
    pub fn new(name: &str, password: &str) -> Self {
        Self { name: name.into(), password: password.into() }
    }
}

impl From<User> for Login {
    fn from(user: User) -> Self {
        Self::new(user.name, user.password)
    }
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}
