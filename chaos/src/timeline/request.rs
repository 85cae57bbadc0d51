//! What a request wanted, and how it ended.

use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

/// The kinds of requests that are told apart in a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestKind {
    /// A step of an upload.
    PushBlob,
    /// A manifest is put, by tag or by digest.
    PushManifest,
    /// The bytes of a digest.
    Pull,
    /// A manifest by its tag.
    TagRead,
    /// Whether something is there, where an upload is, which tags there are.
    Ask,
    /// Something is deleted.
    Delete,
    /// What is none of these.
    Other,
}

/// How a request ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered as asked; "it is not there" is an answer too.
    Acknowledged,
    /// Not now, or not this.
    Refused,
    /// Sent, and no whole answer: it may have happened.
    Unknown,
    /// Nobody listened: it surely did not happen.
    Failed,
}

impl RequestKind {
    /// What a request is for, by the paths of the distribution specification.
    pub(crate) fn of(method: &Method, url: &Url) -> Self {
        let path = url.path();
        let write = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        if *method == Method::DELETE {
            Self::Delete
        } else if path.contains("/blobs/uploads/") {
            if write { Self::PushBlob } else { Self::Ask }
        } else if *method == Method::HEAD || path.ends_with("/tags/list") {
            Self::Ask
        } else if let Some((_, reference)) = path.split_once("/manifests/") {
            match (write, reference.contains(':')) {
                (true, _) => Self::PushManifest,
                (false, true) => Self::Pull,
                (false, false) => Self::TagRead,
            }
        } else if path.contains("/blobs/") {
            Self::Pull
        } else {
            Self::Other
        }
    }

    /// Whether it changes something.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::PushBlob | Self::PushManifest | Self::Delete)
    }

    /// Its words in reports.
    pub fn words(self) -> &'static str {
        match self {
            Self::PushBlob => "push blob",
            Self::PushManifest => "push manifest",
            Self::Pull => "pull",
            Self::TagRead => "tag read",
            Self::Ask => "ask",
            Self::Delete => "delete",
            Self::Other => "other",
        }
    }
}

impl Outcome {
    /// What a status says of a request.
    pub(crate) fn of_status(kind: RequestKind, status: u16) -> Self {
        let reads = matches!(kind, RequestKind::Pull | RequestKind::TagRead | RequestKind::Ask);
        match status {
            200..300 => Self::Acknowledged,
            404 if reads => Self::Acknowledged,
            _ => Self::Refused,
        }
    }

    /// What the lack of an answer says.
    pub(crate) fn of_error(error: &reqwest::Error) -> Self {
        if error.is_connect() { Self::Failed } else { Self::Unknown }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_known_by_its_method_and_path() {
        let of = |method, path: &str| {
            RequestKind::of(&method, &Url::parse(&format!("http://a{path}")).unwrap())
        };
        assert_eq!(of(Method::POST, "/v2/a/b/blobs/uploads/?mount=x"), RequestKind::PushBlob);
        assert_eq!(of(Method::PATCH, "/v2/a/b/blobs/uploads/17"), RequestKind::PushBlob);
        assert_eq!(of(Method::GET, "/v2/a/b/blobs/uploads/17"), RequestKind::Ask);
        assert_eq!(of(Method::PUT, "/v2/a/b/manifests/v1"), RequestKind::PushManifest);
        assert_eq!(of(Method::GET, "/v2/a/b/manifests/v1"), RequestKind::TagRead);
        assert_eq!(of(Method::GET, "/v2/a/b/manifests/sha256:00"), RequestKind::Pull);
        assert_eq!(of(Method::GET, "/v2/a/b/blobs/sha256:00"), RequestKind::Pull);
        assert_eq!(of(Method::HEAD, "/v2/a/b/blobs/sha256:00"), RequestKind::Ask);
        assert_eq!(of(Method::GET, "/v2/a/b/tags/list?n=3"), RequestKind::Ask);
        assert_eq!(of(Method::DELETE, "/v2/a/b/manifests/sha256:00"), RequestKind::Delete);
        assert_eq!(of(Method::GET, "/v2/"), RequestKind::Other);
    }

    #[test]
    fn absence_is_an_answer_to_a_question_and_a_refusal_of_a_write() {
        assert_eq!(Outcome::of_status(RequestKind::TagRead, 404), Outcome::Acknowledged);
        assert_eq!(Outcome::of_status(RequestKind::PushManifest, 404), Outcome::Refused);
        assert_eq!(Outcome::of_status(RequestKind::Pull, 503), Outcome::Refused);
        assert_eq!(Outcome::of_status(RequestKind::PushBlob, 202), Outcome::Acknowledged);
    }
}
