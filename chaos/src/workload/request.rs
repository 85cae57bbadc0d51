//! Single requests, and how they ended. Each answer is judged as it comes.

use anyhow::{Error, Result};

use super::{
    invariant::Invariant,
    ledger::{Kept, Ledger},
};
use crate::{
    client::{Answer, RegistryClient},
    digest::Hasher,
};

/// How a write ended.
#[derive(Clone, Debug)]
pub(crate) enum Wrote {
    /// Success.
    Acknowledged,
    /// The registry said no, with this status.
    Refused(u16),
    /// No answer: it may have happened, and may still happen.
    Unknown,
    /// It was never sent.
    Unsent,
}

impl Wrote {
    pub(crate) fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Acknowledged)
    }

    /// Whether it may have happened, or may happen yet. A `503` can come after the proposal went out.
    pub(crate) fn may_have_happened(&self) -> bool {
        match self {
            Self::Acknowledged | Self::Unknown => true,
            Self::Refused(status) => *status >= 500 && *status != 507,
            Self::Unsent => false,
        }
    }
}

/// How a read ended.
#[derive(Clone, Debug)]
pub(crate) enum Reading {
    /// It is there; the bytes are those of the digest.
    Found(Answer),
    /// A sure "not there".
    Absent,
    /// The registry said not now, with this status.
    Refused(u16),
    /// No answer, or one that broke off.
    Unreachable(String),
    /// Bytes of another digest; the ledger has it already.
    Wrong,
}

impl Ledger {
    /// Judges the answer to a write that `wanted` means success for.
    pub(crate) fn judge_write(&self, result: Result<Answer>, wanted: &[u16]) -> Wrote {
        match result {
            Ok(answer) if wanted.contains(&answer.status) => {
                self.wrote();
                Wrote::Acknowledged
            }
            Ok(answer) => {
                self.judge_error(&answer);
                self.count(|counts| counts.refused += 1);
                Wrote::Refused(answer.status)
            }
            Err(error) if was_never_sent(&error) => {
                self.count(|counts| counts.failed += 1);
                Wrote::Unsent
            }
            Err(_) => {
                self.count(|counts| counts.unknown += 1);
                Wrote::Unknown
            }
        }
    }

    /// Every refusal is an OCI error, and none is a confession that the registry did not expect this (I7).
    pub(crate) fn judge_error(&self, answer: &Answer) {
        let modelled = match answer.status {
            // Of a connection too many, which is closed before a request of it is read.
            503 if answer.body.is_empty() => answer.header("retry-after").is_some(),
            503 | 507 | 400..500 => answer.error_code().is_ok(),
            _ => false,
        };
        if !modelled {
            self.violated(
                Invariant::I7,
                format!("an answer is no modelled error: {}", answer.describe()),
            );
        }
    }

    /// Reads something kept.
    pub(crate) async fn read(&self, client: &RegistryClient, kept: &Kept) -> Reading {
        let result = if kept.manifest {
            client.get_manifest(&kept.repository, &kept.reference).await
        } else {
            client.get(&format!("/v2/{}/blobs/{}", kept.repository, kept.reference)).await
        };
        // A tag names no digest; its answer must still be what it says it is.
        let asked = kept.reference.contains(':').then_some(kept.digest.as_str());
        self.judge_read(result, asked)
    }

    /// Judges the answer to a read; `asked` is the digest that was asked for.
    pub(crate) fn judge_read(&self, result: Result<Answer>, asked: Option<&str>) -> Reading {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                let never_sent = was_never_sent(&error);
                self.count(|counts| {
                    if never_sent {
                        counts.failed += 1;
                    } else {
                        counts.unknown += 1;
                    }
                });
                return Reading::Unreachable(format!("{error:#}"));
            }
        };
        match answer.status {
            200 => self.judge_bytes(answer, asked),
            404 => {
                self.judge_error(&answer);
                Reading::Absent
            }
            status => {
                self.judge_error(&answer);
                self.count(|counts| counts.refused += 1);
                Reading::Refused(status)
            }
        }
    }

    fn judge_bytes(&self, answer: Answer, asked: Option<&str>) -> Reading {
        let named = answer.header("docker-content-digest").map(str::to_owned);
        for digest in named.iter().map(String::as_str).chain(asked) {
            let mut hasher = Hasher::like(digest);
            hasher.update(&answer.body);
            let found = hasher.finish();
            if found != digest {
                self.wrong_bytes(format!("{} gave {found} for {digest}", answer.url));
                return Reading::Wrong;
            }
        }
        self.count(|counts| {
            counts.acknowledged_reads += 1;
            if answer.is_stale() {
                counts.stale_reads += 1;
            }
        });
        Reading::Found(answer)
    }
}

/// Whether a request surely did not reach anybody.
fn was_never_sent(error: &Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<reqwest::Error>())
        .any(|cause| cause.is_connect())
}
