//! Single requests, and how they ended. Each answer is judged as it comes.

use anyhow::Result;

use super::ledger::{Kept, Ledger};
use crate::{
    check::End,
    client::{Answer, RegistryClient},
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

    /// Whether it may have happened, or may happen yet: a `503` or a `507` can come after the proposal went out.
    pub(crate) fn may_have_happened(&self) -> bool {
        match self {
            Self::Acknowledged | Self::Unknown => true,
            Self::Refused(status) => *status >= 500,
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
                self.ended(End::Acknowledged);
                self.wrote();
                // Only a majority can do that. A chunk or a session needs one replica or two.
                if answer.status == 201 {
                    self.recorder().committed();
                }
                Wrote::Acknowledged
            }
            Ok(answer) => {
                self.judge_error(&answer);
                self.ended(End::Refused);
                Wrote::Refused(answer.status)
            }
            Err(error) => {
                let end = End::of_error(&error);
                self.ended(end);
                if end == End::Failed { Wrote::Unsent } else { Wrote::Unknown }
            }
        }
    }

    /// Judges the answer to a question, such as a HEAD or a list: any is fine, but an error that is none. `None` if
    /// nobody answered.
    pub(crate) fn judge_ask(&self, result: Result<Answer>) -> Option<Answer> {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.ended(End::of_error(&error));
                return None;
            }
        };
        match answer.status {
            200..300 => self.ended(End::Acknowledged),
            404 => {
                self.judge_status(&answer);
                self.ended(End::Absent);
            }
            _ => {
                self.judge_status(&answer);
                self.ended(End::Refused);
            }
        }
        Some(answer)
    }

    /// Judges the answer to a request that must not succeed; whether it did is for the caller to say. `None` if nobody
    /// answered.
    pub(crate) fn judge_refusal(&self, result: Result<Answer>) -> Option<Answer> {
        match result {
            Ok(answer) if answer.status < 300 => {
                self.ended(End::Acknowledged);
                Some(answer)
            }
            Ok(answer) => {
                self.judge_error(&answer);
                self.ended(End::Refused);
                Some(answer)
            }
            Err(error) => {
                self.ended(End::of_error(&error));
                None
            }
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
                self.ended(End::of_error(&error));
                return Reading::Unreachable(format!("{error:#}"));
            }
        };
        match answer.status {
            200 if !self.judge_bytes(&answer, asked) => {
                self.ended(End::Wrong);
                Reading::Wrong
            }
            200 => {
                self.ended(End::Acknowledged);
                self.count(|counts| {
                    counts.acknowledged_reads += 1;
                    if answer.is_stale() {
                        counts.stale_reads += 1;
                    }
                });
                Reading::Found(answer)
            }
            // The registry says itself that it may know no better.
            404 if !answer.is_stale() => {
                self.judge_error(&answer);
                self.ended(End::Absent);
                Reading::Absent
            }
            status => {
                self.judge_error(&answer);
                self.ended(End::Refused);
                Reading::Refused(status)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_for_what_it_is_has_surely_not_happened() {
        for (status, may_have) in
            [(400, false), (404, false), (412, false), (503, true), (507, true)]
        {
            assert_eq!(Wrote::Refused(status).may_have_happened(), may_have, "{status}");
        }
        assert!(Wrote::Unknown.may_have_happened() && !Wrote::Unsent.may_have_happened());
    }
}
