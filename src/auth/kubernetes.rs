//! Kubernetes service accounts as users: their tokens are shown to the API server (TokenReview), which
//! says whose they are.

use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::fingerprint::{Fingerprint, Fingerprints};
use super::principal::Principal;
use crate::config::Kubernetes;

/// Longest wait for the API server, and for a place to ask it.
const DEADLINE: Duration = Duration::from_secs(3);
/// Questions to it at a time.
const QUESTIONS_MAX: usize = 16;
/// Log-ins that wait for one or for a place to ask; more are told to come again.
const WAITING_MAX: usize = 64;
/// Bytes of the longest token.
const TOKEN_BYTES_MAX: usize = 12 * 1024;
/// How long a yes is believed. A service account that is deleted goes on working for so long.
const YES_FOR: Duration = Duration::from_secs(60);
/// How long a no is.
const NO_FOR: Duration = Duration::from_secs(5);
/// Answers that are remembered.
const ANSWERS_MAX: u64 = 4_096;
/// The most that is repeated of what the API server said.
const TOLD_CHARS_MAX: usize = 300;

/// Asks the API server, and remembers its answers for a short while.
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    audiences: Vec<String>,
    waiting: Semaphore,
    asking: Semaphore,
    fingerprints: Fingerprints,
    answers: Cache<Fingerprint, Remembered>,
}

#[derive(Clone)]
struct Remembered {
    whose: Option<Principal>,
    until: Instant,
}

/// What came of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reviewed {
    /// It is that service account's.
    Yes(Principal),
    /// It counts for nothing here.
    No(&'static str),
    /// The API server did not say.
    Unknown(String),
}

impl TokenReviewer {
    /// Prepares the questions. Nothing is asked yet: a replica starts while the API server is away.
    ///
    /// # Errors
    /// [`KubernetesError`] when there is no usable kubeconfig, or, without one, no service account of
    /// the pod.
    pub async fn connect(settings: &Kubernetes) -> Result<Option<Self>, KubernetesError> {
        if !settings.enabled {
            return Ok(None);
        }
        let mut config = match &settings.kubeconfig {
            Some(path) => {
                let wrong = |source| KubernetesError::Kubeconfig { path: path.clone(), source };
                let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .map_err(wrong)?
            }
            None => kube::Config::incluster().map_err(KubernetesError::InCluster)?,
        };
        config.connect_timeout = Some(DEADLINE);
        // Whoever logs in can try again; a queue of retries would only make it later.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(KubernetesError::Client)?;
        Ok(Some(Self {
            reviews: Api::all(client),
            audiences: settings.audiences.clone(),
            waiting: Semaphore::new(WAITING_MAX),
            asking: Semaphore::new(QUESTIONS_MAX),
            fingerprints: Fingerprints::new(),
            answers: Cache::builder().max_capacity(ANSWERS_MAX).time_to_live(YES_FOR).build(),
        }))
    }

    /// Whose token it is, if that was asked a short while ago.
    pub(super) fn remembered(&self, token: &str) -> Option<Reviewed> {
        let answer = self.answers.get(&self.fingerprints.of(&[token])?)?;
        if Instant::now() >= answer.until {
            return None;
        }
        Some(answer.whose.map_or(Reviewed::No("the Kubernetes token is not valid"), Reviewed::Yes))
    }

    /// Asks whose token it is.
    pub(super) async fn review(&self, token: &str) -> Reviewed {
        if !looks_like_a_token(token) {
            return Reviewed::No("the password is no Kubernetes token");
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Reviewed::Unknown("too many log-ins wait for the API server".to_owned());
        };
        let asked = tokio::time::timeout(DEADLINE, async {
            // Closed never: it lives as long as this.
            let _place = self.asking.acquire().await;
            self.ask(token).await
        });
        let reviewed = asked.await.unwrap_or_else(|_| {
            Reviewed::Unknown(format!("the API server did not answer within {DEADLINE:?}"))
        });
        let (whose, keep) = match &reviewed {
            Reviewed::Yes(principal) => (Some(principal.clone()), YES_FOR),
            Reviewed::No(_) => (None, NO_FOR),
            Reviewed::Unknown(_) => return reviewed,
        };
        if let Some(key) = self.fingerprints.of(&[token]) {
            self.answers.insert(key, Remembered { whose, until: Instant::now() + keep });
        }
        reviewed
    }

    async fn ask(&self, token: &str) -> Reviewed {
        let audiences = (!self.audiences.is_empty()).then(|| self.audiences.clone());
        let question = TokenReview {
            spec: TokenReviewSpec { audiences, token: token.to_owned() },
            ..TokenReview::default()
        };
        match self.reviews.create(&PostParams::default(), &question).await {
            Ok(answer) => judge(answer.status.unwrap_or_default(), &self.audiences),
            Err(error) => Reviewed::Unknown(told(&error.to_string(), token)),
        }
    }
}

/// Three parts of base64url, as every service-account token is. Anything else is not shown to anybody.
fn looks_like_a_token(text: &str) -> bool {
    let good = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= TOKEN_BYTES_MAX && text.split('.').count() == 3 && text.split('.').all(good)
}

fn judge(status: TokenReviewStatus, wanted: &[String]) -> Reviewed {
    if status.authenticated != Some(true) {
        return Reviewed::No("the Kubernetes token is not valid");
    }
    // An API server that does not know about audiences says yes to a token for anybody.
    let audiences = status.audiences.unwrap_or_default();
    if !wanted.is_empty() && !wanted.iter().any(|audience| audiences.contains(audience)) {
        return Reviewed::No("the Kubernetes token is for another audience");
    }
    let user = status.user.and_then(|user| user.username).unwrap_or_default();
    match service_account(&user) {
        Some(principal) => Reviewed::Yes(principal),
        None => Reviewed::No("the Kubernetes token is not a service account's"),
    }
}

/// `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<Principal> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let label = |text: &str| {
        let mut bytes = text.bytes();
        !text.is_empty()
            && text.len() <= 253
            && bytes.all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)
            })
    };
    (label(namespace) && label(name)).then(|| Principal::ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// What the API server said, for the log: short, and without the token, which it may have repeated.
fn told(message: &str, token: &str) -> String {
    message.replace(token, "<token>").chars().take(TOLD_CHARS_MAX).collect()
}

/// Why service accounts cannot be asked about.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Typically a wrong path, or a context that the file does not have.
    #[error("access.kubernetes.kubeconfig: {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Typically outside of a cluster.
    #[error(
        "access.kubernetes.enabled is true, and there is no service account of a pod here ({0}); set \
         access.kubernetes.kubeconfig"
    )]
    InCluster(kube::config::InClusterError),
    /// Certificates or keys in it do not work.
    #[error("access.kubernetes: cannot prepare to ask the API server: {0}")]
    Client(kube::Error),
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
