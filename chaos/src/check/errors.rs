//! I7: every error is an OCI error with a fitting status, and nothing panics, whatever the clients see of it.
//!
//! Answers are judged as they come; the replicas' logs are read at the end.

use crate::{
    client::Answer,
    cluster::Cluster,
    workload::{Invariant, Ledger},
};

/// What Rust says of a panic, whoever catches it.
const PANIC: &str = "panicked at";
/// Of each replica.
const SHOWN: usize = 3;

impl Ledger {
    /// Every refusal is an OCI error, and none is a confession that the registry did not expect this.
    pub(crate) fn judge_error(&self, answer: &Answer) {
        let modelled = match answer.status {
            // Of a connection too many, which is closed before a request of it is read.
            503 if answer.body.is_empty() => answer.header("retry-after").is_some(),
            503 | 507 | 400..500 => answer.error_code().is_ok() || self.may_be_illegible(answer),
            _ => false,
        };
        if !modelled {
            self.violated(
                Invariant::I7,
                format!("an answer is no modelled error: {}", answer.describe()),
            );
        }
    }

    /// The same of an answer that has no body whatever it says, as that to a HEAD.
    pub(crate) fn judge_status(&self, answer: &Answer) {
        if !matches!(answer.status, 503 | 507 | 400..500) {
            let what = format!("an answer has no modelled status: {}", answer.describe());
            self.violated(Invariant::I7, what);
        }
    }
}

/// Looks through the logs of all replicas, from their first start on.
pub(crate) fn check_errors(ledger: &Ledger, cluster: &Cluster) {
    for index in 0..cluster.len() {
        let replica = cluster.replica(index);
        for line in panics(&replica.log_text()).into_iter().take(SHOWN) {
            ledger.violated(Invariant::I7, format!("{}: {line}", replica.name));
        }
    }
    ledger.checked(Invariant::I7);
}

fn panics(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(PANIC)).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::header::HeaderMap;

    use super::*;

    #[test]
    fn a_panic_is_found_in_a_thread_that_nobody_waits_for() {
        let log = "info ready\nthread 'tokio-rt-worker' (7) panicked at src/x.rs:1:2:\nno entry\n";
        assert_eq!(panics(log), ["thread 'tokio-rt-worker' (7) panicked at src/x.rs:1:2:"]);
        assert!(panics("info ready\n").is_empty());
    }

    #[test]
    fn an_error_has_a_code_and_a_status_that_says_what_to_do() {
        let oci = r#"{"errors":[{"code":"UNAVAILABLE"}]}"#;
        for (status, body, modelled) in [
            (503, oci, true),
            (404, oci, true),
            (507, oci, true),
            (500, oci, false),
            (502, oci, false),
            (404, "not found", false),
            (503, "", false),
        ] {
            let ledger = Ledger::default();
            let (headers, url) = (HeaderMap::new(), "http://a/v2/".to_owned());
            ledger.judge_error(&Answer { status, headers, body: Bytes::from(body), url });
            assert_eq!(ledger.violations().is_empty(), modelled, "{status} {body}");
        }
    }
}
