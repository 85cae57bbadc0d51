//! A small registry client that hides nothing: every answer's status, headers and body are visible.

mod answer;
mod login;
mod pull;
mod push;
mod target;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, RequestBuilder, Response, Url, redirect::Policy};

pub use answer::Answer;
pub use login::Login;
pub use push::Upload;
pub use target::Target;

use crate::{
    timeline::{Outcome, Recorder, RequestKind, Sent},
    tls::Authority,
    users::User,
};
use target::Chooser;

/// No request of the tests takes longer, apart from those that stream a gigabyte.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Talks to one replica, or to the next one with each request. Cheap to clone; clones share the turn.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    http: reqwest::Client,
    chooser: Arc<Chooser>,
    login: Option<Login>,
    deadline: Duration,
    recording: Option<Recording>,
}

/// Where the ends of a client's requests are taken down, and as requests to whom.
#[derive(Clone, Debug)]
struct Recording {
    recorder: Arc<Recorder>,
    replica: String,
}

impl RegistryClient {
    /// A client of the replicas at these base URLs.
    pub fn new(bases: Vec<String>, target: Target) -> Result<Self> {
        Self::with(bases, target, None, None)
    }

    /// A client that believes an authority, and sends a user's name and password with every request.
    pub fn with(
        bases: Vec<String>,
        target: Target,
        authority: Option<&Authority>,
        user: Option<User>,
    ) -> Result<Self> {
        ensure!(!bases.is_empty(), "a client needs a replica");
        let mut http =
            reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_DEADLINE);
        if let Some(authority) = authority {
            http = authority.trusted_by(http)?;
        }
        let chooser = Arc::new(Chooser::new(bases, target));
        let deadline = REQUEST_DEADLINE;
        let login = user.map(Login::from);
        Ok(Self { http: http.build()?, chooser, login, deadline, recording: None })
    }

    /// A client of a replica that the driver has not started. It believes the authority of this PEM only, or those
    /// of the system.
    pub(crate) fn external(base: &str, ca: Option<&[u8]>, login: Option<Login>) -> Result<Self> {
        let mut http =
            reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_DEADLINE);
        if let Some(pem) = ca {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).context("read the CA")?;
            ensure!(!authorities.is_empty(), "the CA file holds no certificate");
            http = http.tls_certs_only(authorities);
        }
        let chooser = Arc::new(Chooser::new(vec![base.to_owned()], Target::One));
        let deadline = REQUEST_DEADLINE;
        Ok(Self { http: http.build()?, chooser, login, deadline, recording: None })
    }

    /// A client that waits no longer than this for any answer.
    #[must_use]
    pub fn patient_for(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// A client whose requests stand in a timeline, as requests to this replica.
    #[must_use]
    pub(crate) fn recorded(mut self, recorder: &Arc<Recorder>, replica: &str) -> Self {
        let recorder = Arc::clone(recorder);
        self.recording = Some(Recording { recorder, replica: replica.to_owned() });
        self
    }

    /// Base URL of the replica whose turn it is, for requests byte by byte.
    pub(crate) fn base(&self) -> String {
        self.chooser.next()
    }

    /// A request to the replica whose turn it is. `path` is a path with a query, or a `Location` that an
    /// earlier answer gave: of that, the path and the query count, so that another replica gets it.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let base = self.chooser.next();
        let url = Url::parse(&base)
            .and_then(|base| base.join(path))
            .with_context(|| format!("join {base} and {path}"))?;
        let mut target = Url::parse(&base)?;
        target.set_path(url.path());
        target.set_query(url.query());
        let request = self.http.request(method, target).timeout(self.deadline);
        Ok(match &self.login {
            Some(login) => request.basic_auth(&login.name, Some(&login.password)),
            None => request,
        })
    }

    /// Sends a request and reads the whole answer. Every request of a load passes here, and what becomes of it is
    /// recorded here.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        let (http, request) = request.build_split();
        let request = request?;
        let kind = RequestKind::of(request.method(), request.url());
        let bytes = request.body().and_then(reqwest::Body::as_bytes).map_or(0, <[u8]>::len);
        let path = request.url().path();
        let sent = self.begin(kind, bytes as u64).map(|sent| sent.about(path));
        let response: Response = match http.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                if let Some(sent) = sent {
                    sent.end(Outcome::of_error(&error), None);
                }
                return Err(error.into());
            }
        };
        let answer = Answer::read(response).await;
        if let Some(sent) = sent {
            let status = answer.as_ref().ok().map(|answer| answer.status);
            let outcome =
                status.map_or(Outcome::Unknown, |status| Outcome::of_status(kind, status));
            sent.end(outcome, status);
        }
        answer
    }

    /// Takes down a request that is sent in another way than by [`Self::send`], if anything of this client's is taken
    /// down. Its end is told to what this returns.
    pub(crate) fn begin(&self, kind: RequestKind, bytes: u64) -> Option<Sent> {
        let Recording { recorder, replica } = self.recording.as_ref()?;
        Some(Sent::begin(recorder, replica, kind, bytes))
    }

    /// A request without a body, and its answer.
    pub async fn call(&self, method: Method, path: &str) -> Result<Answer> {
        let request = self.request(method.clone(), path)?;
        self.send(request).await.with_context(|| format!("{method} {path}"))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path).await
    }

    /// `HEAD`.
    pub async fn head(&self, path: &str) -> Result<Answer> {
        self.call(Method::HEAD, path).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path).await
    }
}
