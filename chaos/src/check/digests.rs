//! I2: no answer carries bytes that do not hash to the digest asked for, and nothing is there that nobody has pushed.
//!
//! Every answer with content passes [`Ledger::judge_bytes`]. What only liars spoke of is asked for at the end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{
    client::{Answer, RegistryClient},
    digest::Hasher,
    wait::wait_until,
    workload::{Invariant, Ledger},
};

/// Until a replica that is well says whether something is there.
const DEADLINE: Duration = Duration::from_secs(20);

impl Ledger {
    /// Whether the content of an answer is what it is called, by the answer itself and by whoever asked.
    pub(crate) fn judge_bytes(&self, answer: &Answer, asked: Option<&str>) -> bool {
        let named = answer.header("docker-content-digest");
        for digest in named.into_iter().chain(asked) {
            let mut hasher = Hasher::like(digest);
            hasher.update(&answer.body);
            if !self.judge_hash(&answer.url, digest, &hasher.finish()) {
                return false;
            }
        }
        true
    }

    /// Whether content that came in parts hashes to what was asked for.
    pub(crate) fn judge_hash(&self, from: &str, digest: &str, found: &str) -> bool {
        if found == digest {
            return true;
        }
        self.count(|counts| counts.wrong_bytes += 1);
        self.violated(Invariant::I2, format!("{from} gave {found} for {digest}"));
        false
    }

    /// A client said what is not so, and was believed.
    pub(crate) fn believed(&self, lie: &str, answer: &Answer) {
        let what = format!("a lie was believed, {lie}: {}", answer.describe());
        self.violated(Invariant::I2, what);
    }

    /// No replica may know more of an upload than was ever sent.
    pub(crate) fn judge_offset(&self, known: Option<u64>, sent: u64, answer: &Answer) {
        if known > Some(sent) {
            let what = format!("{known:?} bytes of {sent} sent: {}", answer.describe());
            self.violated(Invariant::I2, what);
        }
    }
}

/// Asks every replica for everything that nobody may have published. Returns how many questions that were.
pub(crate) async fn check_digests(ledger: &Ledger, clients: &[RegistryClient]) -> Result<usize> {
    let never = ledger.all_never();
    for kept in &never {
        let kind = if kept.manifest { "manifests" } else { "blobs" };
        let path = format!("/v2/{}/{kind}/{}", kept.repository, kept.reference);
        for client in clients {
            let answer = wait_until("it is sure that a lie is not there", DEADLINE, || async {
                let answer = ledger.judge_ask(client.head(&path).await);
                let answer = answer.with_context(|| format!("{path} was not answered"))?;
                let sure = answer.status < 300 || (answer.status == 404 && !answer.is_stale());
                ensure!(sure, "{}", answer.describe());
                Ok(answer)
            });
            let answer = answer.await?;
            if answer.status < 300 {
                let what = format!("{path} was published by a lie: {}", answer.describe());
                ledger.violated(Invariant::I2, what);
            }
        }
    }
    ledger.checked(Invariant::I2);
    Ok(never.len() * clients.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::digest::sha256;

    fn answer(body: &'static str, named: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(named) = named {
            headers.insert("docker-content-digest", named.parse().unwrap());
        }
        Answer { status: 200, headers, body: Bytes::from(body), url: "http://a/".to_owned() }
    }

    #[test]
    fn bytes_are_those_that_were_asked_for_and_those_that_they_are_called() {
        let (good, bad) = (sha256(b"good"), sha256(b"bad"));
        for (named, asked, fine) in [
            (Some(&good), Some(&good), true),
            (None, Some(&good), true),
            (Some(&bad), None, false),
            (Some(&good), Some(&bad), false),
            (None, Some(&bad), false),
        ] {
            let ledger = Ledger::default();
            let answer = answer("good", named.map(String::as_str));
            assert_eq!(ledger.judge_bytes(&answer, asked.map(String::as_str)), fine);
            assert_eq!(ledger.counts().wrong_bytes, u64::from(!fine));
        }
    }
}
