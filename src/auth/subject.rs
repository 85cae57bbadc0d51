//! Whom a rule speaks of.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tercet_storage::Pattern;

use super::principal::Principal;

/// Whom a rule speaks of, as configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `anonymous`: everybody, logged in or not. A right that one has without a name is not lost by
    /// telling it.
    Anonymous,
    /// `authenticated`: everybody who proved a name.
    Authenticated,
    /// `user:PATTERN`.
    User(Pattern),
    /// `robot:PATTERN`.
    Robot(Pattern),
    /// `serviceaccount:PATTERN/PATTERN`.
    ServiceAccount {
        /// Its namespace.
        namespace: Pattern,
        /// Its name.
        name: Pattern,
    },
    /// `certificate:PATTERN`: by the common name.
    Certificate(Pattern),
}

/// The words before the colon, for hints.
const KINDS: [&str; 4] = ["user", "robot", "serviceaccount", "certificate"];
/// The words that stand alone.
const ALONE: [&str; 2] = ["anonymous", "authenticated"];
/// How like a known word a wrong one must be to be taken for it.
const LIKENESS_MIN: f64 = 0.75;

impl Subject {
    /// Whether `principal` is meant.
    #[must_use]
    pub fn matches(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Anonymous, _) => true,
            (Self::Authenticated, principal) => *principal != Principal::Anonymous,
            (Self::User(pattern), Principal::User(name))
            | (Self::Robot(pattern), Principal::Robot(name))
            | (Self::Certificate(pattern), Principal::Certificate(name)) => pattern.matches(name),
            (
                Self::ServiceAccount { namespace, name },
                Principal::ServiceAccount { namespace: of, name: found },
            ) => namespace.matches(of) && name.matches(found),
            _ => false,
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((kind, name)) = text.split_once(':') else {
            return match text {
                "anonymous" => Ok(Self::Anonymous),
                "authenticated" => Ok(Self::Authenticated),
                _ if KINDS.contains(&text) => Err(format!(
                    "`{text}` names nobody; write `{text}:NAME`, or `{text}:*` for all"
                )),
                _ => Err(unknown(text, &ALONE, |word| format!("`{word}`"))),
            };
        };
        let pattern =
            |name: &str| Pattern::parse(name).map_err(|error| format!("`{text}`: {error}"));
        match kind {
            "user" => pattern(name).map(Self::User),
            "robot" => pattern(name).map(Self::Robot),
            "certificate" => pattern(name).map(Self::Certificate),
            "serviceaccount" => {
                let (namespace, name) = name.split_once('/').ok_or_else(|| {
                    format!("`{text}` has no namespace; write `serviceaccount:NAMESPACE/NAME`")
                })?;
                Ok(Self::ServiceAccount { namespace: pattern(namespace)?, name: pattern(name)? })
            }
            _ => Err(unknown(text, &KINDS, |word| format!("`{word}:{name}`"))),
        }
    }
}

fn unknown(text: &str, known: &[&str], written: impl Fn(&str) -> String) -> String {
    let word = text.split_once(':').map_or(text, |(kind, _)| kind).to_ascii_lowercase();
    let like = |known: &str| strsim::jaro_winkler(&word, known);
    let nearest = known
        .iter()
        .max_by(|left, right| like(left).total_cmp(&like(right)))
        .filter(|nearest| like(nearest) >= LIKENESS_MIN);
    match nearest {
        Some(nearest) => format!("`{text}` is no subject; did you mean {}?", written(nearest)),
        None => format!(
            "`{text}` is no subject; use anonymous, authenticated, user:NAME, robot:NAME, \
             serviceaccount:NAMESPACE/NAME or certificate:COMMON-NAME"
        ),
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Robot(name) => write!(f, "robot:{name}"),
            Self::ServiceAccount { namespace, name } => {
                write!(f, "serviceaccount:{namespace}/{name}")
            }
            Self::Certificate(name) => write!(f, "certificate:{name}"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn subject(text: &str) -> Subject {
        text.parse().unwrap()
    }

    fn everybody() -> [Principal; 5] {
        [
            Principal::Anonymous,
            Principal::User("alice".into()),
            Principal::Robot("alice".into()),
            Principal::ServiceAccount { namespace: "ci".into(), name: "alice".into() },
            Principal::Certificate("alice".into()),
        ]
    }

    #[test]
    fn each_subject_means_its_own_kind() {
        let meant = |text: &str| everybody().map(|principal| subject(text).matches(&principal));
        assert_eq!(meant("anonymous"), [true; 5]);
        assert_eq!(meant("authenticated"), [false, true, true, true, true]);
        assert_eq!(meant("user:alice"), [false, true, false, false, false]);
        assert_eq!(meant("robot:ali*"), [false, false, true, false, false]);
        assert_eq!(meant("serviceaccount:ci/*"), [false, false, false, true, false]);
        assert_eq!(meant("serviceaccount:*/alice"), [false, false, false, true, false]);
        assert_eq!(meant("certificate:*"), [false, false, false, false, true]);
        assert_eq!(meant("user:Alice"), [false; 5]);
        assert_eq!(meant("serviceaccount:prod/*"), [false; 5]);
    }

    #[test]
    fn texts_come_back_as_they_were() {
        for text in [
            "anonymous",
            "authenticated",
            "user:*",
            "robot:ci-?",
            "serviceaccount:team-*/build*",
            "certificate:node.example.org",
        ] {
            assert_eq!(subject(text).to_string(), text);
        }
    }

    #[test]
    fn a_wrong_subject_is_explained() {
        let refusal = |text: &str| text.parse::<Subject>().unwrap_err();
        assert_eq!(refusal("anonymos"), "`anonymos` is no subject; did you mean `anonymous`?");
        assert_eq!(refusal("users:bob"), "`users:bob` is no subject; did you mean `user:bob`?");
        assert_eq!(refusal("User:bob"), "`User:bob` is no subject; did you mean `user:bob`?");
        assert_eq!(refusal("user"), "`user` names nobody; write `user:NAME`, or `user:*` for all");
        assert_eq!(
            refusal("serviceaccount:builder"),
            "`serviceaccount:builder` has no namespace; write `serviceaccount:NAMESPACE/NAME`"
        );
        assert_eq!(refusal("user:"), "`user:`: pattern is empty; `**` matches everything");
        assert_eq!(
            refusal("group:devs"),
            "`group:devs` is no subject; use anonymous, authenticated, user:NAME, robot:NAME, \
             serviceaccount:NAMESPACE/NAME or certificate:COMMON-NAME"
        );
    }
}
