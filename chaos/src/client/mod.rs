//! A small registry client that hides nothing: every answer's status, headers and body are visible.

mod answer;
mod pull;
mod push;
mod target;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, RequestBuilder, Url, redirect::Policy};

pub use answer::Answer;
pub use push::Upload;
pub use target::Target;

use crate::{tls::Authority, users::User};
use target::Chooser;

/// No request of the tests takes longer, apart from those that stream a gigabyte.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Talks to one replica, or to the next one with each request. Cheap to clone; clones share the turn.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    http: reqwest::Client,
    chooser: Arc<Chooser>,
    user: Option<User>,
    deadline: Duration,
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
        Ok(Self { http: http.build()?, chooser, user, deadline: REQUEST_DEADLINE })
    }

    /// A client that waits no longer than this for any answer.
    #[must_use]
    pub fn patient_for(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
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
        Ok(match self.user {
            Some(user) => request.basic_auth(user.name, Some(user.password)),
            None => request,
        })
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, request: RequestBuilder) -> Result<Answer> {
        Answer::read(request.send().await?).await
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
