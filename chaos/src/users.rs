//! The users of the tests.

/// A user with a password, as an htpasswd file and a login know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// What it logs in as.
    pub name: &'static str,
    /// What it logs in with.
    pub password: &'static str,
    /// bcrypt of the password, at the cost that `htpasswd -B` takes by default.
    pub bcrypt: &'static str,
}

impl User {
    /// In the tests' rules: may do everything.
    pub const ALICE: Self = Self {
        name: "alice",
        password: "wonderland-7",
        bcrypt: "$2y$05$R2AwNNE8S6vYnpTWwWtuqe6p2Usk8DHLv8pEQtcplRxGamqUMNCjq",
    };
    /// In the tests' rules: may pull.
    pub const BOB: Self = Self {
        name: "bob",
        password: "builders-cup-3",
        bcrypt: "$2y$05$XX/gjghzBzs7USQBtW1TNenW8askbmMgiF.sW0cMXUgTlpcdHGRg.",
    };

    /// Its line of an htpasswd file.
    pub fn htpasswd_line(&self) -> String {
        format!("{}:{}\n", self.name, self.bcrypt)
    }

    /// `name:password`, as several clients take it.
    pub fn pair(&self) -> String {
        format!("{}:{}", self.name, self.password)
    }
}
