//! A request on its way. Whatever becomes of it, it has one beginning and one end in the books.

use std::{sync::Arc, time::Instant};

use super::{recorder::Recorder, request::Outcome, request::RequestKind};
use crate::workload::has_history;

/// How the requests of a run ended, as far as the clients that sent them know (I10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Begun.
    pub(crate) sent: u64,
    /// Answered as asked.
    pub(crate) acknowledged: u64,
    /// Answered: not now, or not this.
    pub(crate) refused: u64,
    /// Without a whole answer, or nobody waited for one.
    pub(crate) unknown: u64,
    /// Nobody listened.
    pub(crate) failed: u64,
    /// Bytes of their bodies.
    pub(crate) bytes: u64,
    /// Of all these, changes of tags with a history that happened, or may have.
    pub(crate) tag_changes: u64,
}

impl Requests {
    /// Without an end yet. Never below zero, unless an end is counted twice.
    pub(crate) fn open(self) -> i64 {
        let ended = self.acknowledged + self.refused + self.unknown + self.failed;
        self.sent.cast_signed() - ended.cast_signed()
    }

    pub(super) fn ended(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Acknowledged => &mut self.acknowledged,
            Outcome::Refused => &mut self.refused,
            Outcome::Unknown => &mut self.unknown,
            Outcome::Failed => &mut self.failed,
        } += 1;
    }
}

/// One request. If it is dropped before its end, somebody has stopped waiting: it is unknown.
#[derive(Debug)]
pub(crate) struct Sent {
    recorder: Arc<Recorder>,
    replica: String,
    kind: RequestKind,
    began: Instant,
    changes_tag: bool,
    open: bool,
}

impl Sent {
    pub(crate) fn begin(
        recorder: &Arc<Recorder>,
        replica: &str,
        kind: RequestKind,
        bytes: u64,
    ) -> Self {
        recorder.begun(bytes);
        Self {
            recorder: Arc::clone(recorder),
            replica: replica.to_owned(),
            kind,
            began: Instant::now(),
            changes_tag: false,
            open: true,
        }
    }

    /// The same, if it wants to change a tag that has a history.
    pub(crate) fn about(mut self, path: &str) -> Self {
        self.changes_tag = self.kind.writes() && has_history(path);
        self
    }

    /// How it ended. `status` is that of the answer, if there was one.
    pub(crate) fn end(mut self, outcome: Outcome, status: Option<u16>) {
        self.close(outcome, status);
    }

    fn close(&mut self, outcome: Outcome, status: Option<u16>) {
        if std::mem::take(&mut self.open) {
            self.recorder.request(&self.replica, self.kind, outcome, self.began);
            // A 503 or a 507 can come after the proposal went out.
            let may_have_happened = match outcome {
                Outcome::Acknowledged | Outcome::Unknown => true,
                Outcome::Refused => status.is_some_and(|status| status >= 500),
                Outcome::Failed => false,
            };
            if self.changes_tag && may_have_happened {
                self.recorder.changed_a_tag();
            }
            // Not for want of a majority: another status says that something else is in the way.
            if self.kind.writes() && (outcome == Outcome::Unknown || status == Some(503)) {
                self.recorder.not_written(&self.replica, self.began);
            }
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.close(Outcome::Unknown, None);
    }
}
