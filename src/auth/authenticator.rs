//! Finds out who a request is from.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use tercet_storage::Clock;

use super::accounts::Accounts;
use super::credentials::{Credentials, HEADER_BYTES_MAX, HEADER_BYTES_MAX_KUBERNETES};
use super::kubernetes::{Reviewed, TokenReviewer};
use super::login::{KUBERNETES_USER, Login};
use super::password::{Candidate, PasswordCheck, Verdict};
use super::principal::Principal;
use super::throttle::{Held, Throttle};
use super::token::{self, Grants, Issued, Keyring, KeyringError, Refusal, Scene};
use crate::config::Access;
use crate::ops::Metrics;

/// Longest wait of a log-in whose address has too many under way.
const CROWD_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two looks whether it has a place.
const CROWD_PAUSE: Duration = Duration::from_millis(50);

/// What is known about a request before anybody is believed.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// The address of the other end.
    pub remote: Option<IpAddr>,
    /// The common name of its client certificate, which TLS has verified.
    pub client_certificate: Option<&'a str>,
}

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    /// The one who asks.
    pub principal: Principal,
    /// What a bearer token allows at most; `None` without one.
    pub grants: Option<Grants>,
}

/// Why nobody is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// The credentials are wrong. The reason is for the audit log: whoever asks hears only that.
    #[error("{reason}")]
    Refused {
        /// Without any secret in it.
        reason: &'static str,
    },
    /// Too many have failed, or are being checked.
    #[error("too many log-ins; try again in {retry_after:?}")]
    Throttled {
        /// How long to wait.
        retry_after: Duration,
    },
    /// Somebody else has to say, and does not.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Held> for AuthenticationError {
    fn from(held: Held) -> Self {
        Self::Throttled { retry_after: held.retry_after() }
    }
}

impl From<Refusal> for AuthenticationError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { reason: refusal.0 }
    }
}

impl From<KeyringError> for AuthenticationError {
    fn from(error: KeyringError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Why no token was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// More is asked for than fits.
    #[error(
        "a token for so many repositories would be longer than {} bytes; ask for fewer",
        token::TOKEN_BYTES_MAX
    )]
    TooLong,
    /// There is no key, or it cannot be read.
    #[error("{0}")]
    Unavailable(String),
}

/// What an [`Authenticator`] is made of.
pub struct AuthenticatorParts {
    /// `[access]` as it is now.
    pub access: Access,
    /// Users and robots as they are now.
    pub accounts: Accounts,
    /// Who knows Kubernetes service accounts, if they count.
    pub kubernetes: Option<TokenReviewer>,
    /// The keys of tokens.
    pub keys: Keyring,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Counts log-ins.
    pub metrics: Arc<Metrics>,
}

/// Checks credentials of every kind.
pub struct Authenticator {
    access: ArcSwap<Access>,
    accounts: ArcSwap<Accounts>,
    passwords: PasswordCheck,
    throttle: Throttle,
    kubernetes: Option<TokenReviewer>,
    keys: Keyring,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Joins the parts.
    #[must_use]
    pub fn new(parts: AuthenticatorParts) -> Self {
        Self {
            access: ArcSwap::from_pointee(parts.access),
            accounts: ArcSwap::from_pointee(parts.accounts),
            passwords: PasswordCheck::new(),
            throttle: Throttle::new(),
            kubernetes: parts.kubernetes,
            keys: parts.keys,
            clock: parts.clock,
            metrics: parts.metrics,
        }
    }

    /// `[access]` as it is now.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Users and robots as they are now.
    pub(super) fn accounts(&self) -> Arc<Accounts> {
        self.accounts.load_full()
    }

    /// From now on these count.
    pub(super) fn set_accounts(&self, accounts: Accounts) {
        self.accounts.store(Arc::new(accounts));
    }

    /// From now on this counts.
    pub(super) fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    /// Whether anybody can say who they are with a name and a password.
    #[must_use]
    pub fn can_log_in(&self) -> bool {
        let (users, robots) = self.accounts.load().count();
        let access = self.access.load();
        access.htpasswd.is_some() || users + robots > 0 || self.kubernetes.is_some()
    }

    /// Who a request is from: by its `Authorization` header, else by its client certificate, else
    /// [`Principal::Anonymous`]. A header that convinces nobody is an error, also where anonymous
    /// would have been enough.
    ///
    /// # Errors
    /// [`AuthenticationError`].
    pub async fn authenticate(
        &self,
        request: &RequestFacts<'_>,
    ) -> Result<Authenticated, AuthenticationError> {
        let bytes_max = match &self.kubernetes {
            Some(_) => HEADER_BYTES_MAX_KUBERNETES,
            None => HEADER_BYTES_MAX,
        };
        let credentials = Credentials::read(request.headers, bytes_max);
        let credentials = credentials.map_err(|reason| AuthenticationError::Refused { reason });
        if credentials.is_err() {
            self.count(Method::Basic, "refused");
        }
        match credentials? {
            Credentials::Absent => Ok(self.without_header(request.client_certificate)),
            Credentials::Basic { user, password } => {
                let principal = self.log_in(&user, &password.0, request.remote).await?;
                Ok(Authenticated { principal, grants: None })
            }
            Credentials::Bearer(token) => {
                let opened = self.open(&token.0).await;
                self.counted(Method::Token, opened)
            }
        }
    }

    /// Checks a user name and a password, wherever they come from.
    ///
    /// # Errors
    /// [`AuthenticationError`].
    pub async fn log_in(
        &self,
        user: &str,
        password: &str,
        remote: Option<IpAddr>,
    ) -> Result<Principal, AuthenticationError> {
        if let Some(reviewer) = &self.kubernetes
            && user == KUBERNETES_USER
        {
            let reviewed = self.service_account(reviewer, password, remote).await;
            return self.counted(Method::Kubernetes, reviewed);
        }
        let checked = self.account(user, password, remote).await;
        self.counted(Method::Basic, checked)
    }

    /// Makes a token for somebody who has been authenticated.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, principal: &Principal, grants: &Grants) -> Result<Issued, IssueError> {
        let key = self.keys.newest().map_err(|error| IssueError::Unavailable(error.to_string()))?;
        let Some(key) = key else {
            let message = "the cluster has no key for tokens yet; its leader makes one";
            return Err(IssueError::Unavailable(message.to_owned()));
        };
        let access = self.access.load();
        let scene = self.scene(&access.service);
        token::sign(&key, scene, access.token_seconds, principal, grants)
            .map_err(|error| IssueError::Unavailable(format!("cannot sign a token: {error}")))?
            .ok_or(IssueError::TooLong)
    }

    fn without_header(&self, client_certificate: Option<&str>) -> Authenticated {
        let principal = match client_certificate {
            Some(name) => {
                self.count(Method::Certificate, "ok");
                Principal::Certificate(name.to_owned())
            }
            None => Principal::Anonymous,
        };
        Authenticated { principal, grants: None }
    }

    async fn account(
        &self,
        user: &str,
        password: &str,
        remote: Option<IpAddr>,
    ) -> Result<Principal, AuthenticationError> {
        let wrong = AuthenticationError::Refused { reason: "wrong user name or password" };
        let (login, password) = Login::of(user, password);
        if login.name().len() > super::htpasswd::NAME_BYTES_MAX {
            return Err(wrong);
        }
        let accounts = self.accounts.load_full();
        let found = accounts.find(&login, self.clock.now_ms());
        if accounts.count() == (0, 0) {
            return Err(wrong);
        }
        let nobody;
        let (name, hash) = match &found {
            Some((principal, hash)) => (principal.to_string(), *hash),
            None => {
                nobody = accounts.nobody();
                (String::new(), &nobody)
            }
        };
        let candidate = Candidate { name: &name, password, hash };
        if let Some((principal, _)) = &found
            && self.passwords.remembers(&candidate)
        {
            return Ok(principal.clone());
        }
        let began = Instant::now();
        let attempt = loop {
            match self.throttle.admit(remote, &login, Instant::now()) {
                Ok(attempt) => break attempt,
                // A client with many requests at once: the first of them makes the others cheap.
                Err(Held::Crowded) if began.elapsed() < CROWD_WAIT_MAX => {
                    tokio::time::sleep(CROWD_PAUSE).await;
                }
                Err(held) => return Err(held.into()),
            }
            if let Some((principal, _)) = &found
                && self.passwords.remembers(&candidate)
            {
                return Ok(principal.clone());
            }
        };
        match (self.passwords.check(&candidate, attempt).await, found) {
            (Verdict::Right, Some((principal, _))) => Ok(principal),
            (Verdict::Busy(retry_after), _) => Err(AuthenticationError::Throttled { retry_after }),
            _ => Err(wrong),
        }
    }

    async fn service_account(
        &self,
        reviewer: &TokenReviewer,
        token: &str,
        remote: Option<IpAddr>,
    ) -> Result<Principal, AuthenticationError> {
        let reviewed = match reviewer.remembered(token) {
            Some(reviewed) => reviewed,
            None => {
                // By address only: all service accounts share one name.
                let attempt = self.throttle.admit_address(remote, Instant::now())?;
                let reviewed = reviewer.review(token).await;
                match &reviewed {
                    Reviewed::Yes(_) => attempt.succeeded(),
                    Reviewed::No(_) => attempt.failed(Instant::now()),
                    Reviewed::Unknown(_) => drop(attempt),
                }
                reviewed
            }
        };
        match reviewed {
            Reviewed::Yes(principal) => Ok(principal),
            Reviewed::No(reason) => Err(AuthenticationError::Refused { reason }),
            Reviewed::Unknown(why) => {
                tracing::warn!(error = why, "cannot review a Kubernetes token");
                let message = "the Kubernetes API server did not say whose token this is";
                Err(AuthenticationError::Unavailable(message.to_owned()))
            }
        }
    }

    async fn open(&self, token: &str) -> Result<Authenticated, AuthenticationError> {
        let id = token::key_id(token)?;
        let Some(key) = self.keys.find(&id).await? else {
            return Err(AuthenticationError::Refused {
                reason: "the token is signed with a key that the cluster does not have",
            });
        };
        let access = self.access.load();
        let (principal, grants) = token::open(token, &key, self.scene(&access.service))?;
        if !self.accounts.load().knows(&principal, self.clock.now_ms()) {
            return Err(AuthenticationError::Refused { reason: "the token's user is gone" });
        }
        if matches!(principal, Principal::ServiceAccount { .. }) && self.kubernetes.is_none() {
            return Err(AuthenticationError::Refused {
                reason: "Kubernetes service accounts do not count any more",
            });
        }
        Ok(Authenticated { principal, grants: Some(grants) })
    }

    fn scene<'a>(&'a self, audience: &'a str) -> Scene<'a> {
        Scene { issuer: self.keys.issuer(), audience, now_s: self.clock.now_ms() / 1000 }
    }

    fn counted<T>(
        &self,
        method: Method,
        outcome: Result<T, AuthenticationError>,
    ) -> Result<T, AuthenticationError> {
        self.count(
            method,
            match &outcome {
                Ok(_) => "ok",
                Err(AuthenticationError::Refused { .. }) => "refused",
                Err(AuthenticationError::Throttled { .. }) => "throttled",
                Err(AuthenticationError::Unavailable(_)) => "unavailable",
            },
        );
        outcome
    }

    fn count(&self, method: Method, result: &'static str) {
        self.metrics.logins.with_label_values(&[method.as_str(), result]).inc();
    }
}

/// How somebody said who they are, as the metric names it.
#[derive(Debug, Clone, Copy)]
enum Method {
    Basic,
    Token,
    Kubernetes,
    Certificate,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Token => "token",
            Self::Kubernetes => "kubernetes",
            Self::Certificate => "certificate",
        }
    }
}
