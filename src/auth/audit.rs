//! The audit log: one line for each write, once its outcome is known, and one for each denial.
//!
//! Lines have the target `tercet::audit` and the level `info`. The replica that the client spoke to
//! writes them, whichever replica does the work.

use std::fmt;
use std::net::SocketAddr;

use super::principal::Principal;

/// Longest text of a line, in characters: some of it comes from clients.
const TEXT_CHARS_MAX: usize = 300;

/// What a line says about a request, whatever its outcome. Nothing in it is a secret: credentials never
/// come here, not even the name that somebody failed to log in with, because people type passwords into
/// the wrong field.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Where the request came from.
    pub remote: Option<SocketAddr>,
    /// What it does: `manifest.put`, `blob.delete`, `token`.
    pub action: &'static str,
    /// The repository it is about.
    pub repository: Option<String>,
    /// Tag, digest or upload session.
    pub reference: Option<String>,
    /// What the client calls the request (`X-Request-Id`).
    pub request_id: Option<String>,
}

/// A write that is being carried out. If it is dropped before it was finished, because the client went
/// away, the line says so: then the write may have happened.
#[derive(Debug)]
pub struct Entry {
    principal: Principal,
    subject: Subject,
    finished: bool,
}

impl Entry {
    /// A write that begins.
    #[must_use]
    pub fn new(principal: Principal, subject: Subject) -> Self {
        Self { principal, subject, finished: false }
    }

    /// Writes the line of a write that came to an end.
    pub fn finish(mut self, status: u16, digest: Option<&str>) {
        self.finished = true;
        self.write("write", Some(status), digest);
    }

    fn write(&self, message: &'static str, status: Option<u16>, digest: Option<&str>) {
        let Subject { remote, action, repository, reference, request_id } = &self.subject;
        tracing::info!(
            target: "tercet::audit",
            principal = shown(&self.principal),
            remote = remote.map(|remote| remote.to_string()),
            action,
            repository = repository.as_ref().map(shown),
            reference = reference.as_ref().map(shown),
            digest,
            status,
            request_id = request_id.as_ref().map(shown),
            "{message}"
        );
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.finished {
            self.write("write interrupted", None, None);
        }
    }
}

/// Writes the line of a request that was refused for who sent it. `principal` is who that is, if the
/// credentials were good.
pub fn denied(
    principal: Option<&Principal>,
    subject: &Subject,
    status: u16,
    reason: &(impl fmt::Display + ?Sized),
) {
    let Subject { remote, action, repository, reference, request_id } = subject;
    tracing::info!(
        target: "tercet::audit",
        principal = principal.map(shown),
        remote = remote.map(|remote| remote.to_string()),
        action,
        repository = repository.as_ref().map(shown),
        reference = reference.as_ref().map(shown),
        status,
        reason = shown(reason),
        request_id = request_id.as_ref().map(shown),
        "denied"
    );
}

/// What an operator did through a replica's peer listener.
#[derive(Debug, Clone, Default)]
pub struct Administered {
    /// Where the request came from.
    pub remote: Option<SocketAddr>,
    /// The route, such as `member.remove`.
    pub action: String,
    /// What was changed, or what was refused.
    pub detail: String,
    /// Why a refusal was overridden, as the operator typed it.
    pub forced: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
}

/// Writes the line of an operator's change, made or refused. Whoever holds the key of a replica may make
/// one, so the principal is that.
pub fn administered(change: &Administered) {
    tracing::info!(
        target: "tercet::audit",
        principal = "operator",
        remote = change.remote.map(|remote| remote.to_string()),
        action = shown(&change.action),
        detail = shown(&change.detail),
        forced = change.forced.as_ref().map(shown),
        status = change.status,
        "administration"
    );
}

/// Text without control characters, of bounded length: a name must not make a line of its own.
fn shown(text: &(impl fmt::Display + ?Sized)) -> String {
    let text = text.to_string();
    let mut out = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        if index == TEXT_CHARS_MAX {
            out.push_str("...");
            break;
        }
        // Also what reorders or hides text on a terminal.
        if character.is_control() || (!character.is_ascii() && !character.is_alphanumeric()) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(write: impl FnOnce()) -> Vec<serde_json::Value> {
        let lines = Lines::default();
        let there = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || there.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, write);
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn subject() -> Subject {
        Subject {
            remote: Some("192.0.2.7:4711".parse().unwrap()),
            action: "manifest.put",
            repository: Some("team/app".into()),
            reference: Some("v1".into()),
            request_id: Some("abc".into()),
        }
    }

    #[test]
    fn a_write_says_who_what_and_how_it_ended() {
        let lines = written(|| {
            Entry::new(Principal::User("alice".into()), subject()).finish(201, Some("sha256:ab"));
        });
        let line = &lines[0];
        for (field, value) in [
            ("target", "tercet::audit"),
            ("level", "INFO"),
            ("message", "write"),
            ("principal", "user:alice"),
            ("remote", "192.0.2.7:4711"),
            ("action", "manifest.put"),
            ("repository", "team/app"),
            ("reference", "v1"),
            ("digest", "sha256:ab"),
            ("request_id", "abc"),
        ] {
            assert_eq!(line[field], value, "{field} of {line}");
        }
        assert_eq!(line["status"], 201);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn a_write_that_nobody_waited_for_is_written_too() {
        let lines = written(|| drop(Entry::new(Principal::Anonymous, subject())));
        assert_eq!(lines[0]["message"], "write interrupted");
        assert!(lines[0].get("status").is_none());
    }

    #[test]
    fn no_name_makes_a_line_of_its_own() {
        let evil = "x\n{\"target\":\"tercet::audit\"}\u{1b}[2J\u{202e}é";
        let lines = written(|| {
            let subject = Subject { request_id: Some(evil.repeat(100)), ..subject() };
            denied(Some(&Principal::Certificate(evil.into())), &subject, 403, "no rule");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(
            lines[0]["principal"],
            "certificate:x\\n{\"target\":\"tercet::audit\"}\\u{1b}[2J\\u{202e}é"
        );
        assert!(lines[0]["request_id"].as_str().unwrap().len() < 10 * TEXT_CHARS_MAX);
    }
}
