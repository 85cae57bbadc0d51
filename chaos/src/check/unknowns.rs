//! I10: the books of the check itself are honest.
//!
//! The client layer takes down every request when it goes out and when it ends, whatever workload sends it; who stops
//! waiting has an unknown one. The workloads judge the answers. Neither may say of a request that it failed when it
//! may have happened, no request is without an end, none is judged that was never sent, and every change of a tag that
//! may have happened is in the tag's history.

use std::time::{Duration, Instant};

use anyhow::Error;

use crate::{
    timeline::{Outcome, Requests},
    workload::{Invariant, Ledger},
};

/// No client waits longer for an answer, and none asks anything any more.
const OPEN_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// How the requests ended that were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Answered with what was asked for.
    pub acknowledged: u64,
    /// Answered with "not now" or "not this".
    pub refused: u64,
    /// Answered with "not there".
    pub absent: u64,
    /// Answered with wrong bytes.
    pub wrong: u64,
    /// Sent, and not answered: they stay open to the end.
    pub unknown: u64,
    /// Never sent.
    pub failed: u64,
}

/// How one request ended, for whoever judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Acknowledged,
    Refused,
    Absent,
    Wrong,
    Unknown,
    Failed,
}

impl End {
    /// The end of a request without a whole answer.
    pub(crate) fn of_error(error: &Error) -> Self {
        let causes = error.chain().filter_map(|cause| cause.downcast_ref::<reqwest::Error>());
        match causes.map(Outcome::of_error).any(|outcome| outcome == Outcome::Failed) {
            true => Self::Failed,
            false => Self::Unknown,
        }
    }
}

impl Ends {
    fn all(self) -> u64 {
        let answered = self.acknowledged + self.refused + self.absent + self.wrong;
        answered + self.unknown + self.failed
    }
}

impl Ledger {
    /// A request was judged. It counts in both books.
    pub(crate) fn ended(&self, end: End) {
        self.tally(|ends| match end {
            End::Acknowledged => ends.acknowledged += 1,
            End::Refused => ends.refused += 1,
            End::Absent => ends.absent += 1,
            End::Wrong => ends.wrong += 1,
            End::Unknown => ends.unknown += 1,
            End::Failed => ends.failed += 1,
        });
        self.count(|counts| match end {
            End::Refused => counts.refused += 1,
            End::Unknown => counts.unknown += 1,
            End::Failed => counts.failed += 1,
            End::Acknowledged | End::Absent | End::Wrong => {}
        });
    }
}

/// Compares the books, as soon as nothing is under way any more. `changes` of tags are in the histories, if those were
/// checked to the end. Returns what was sent, for the report.
pub(crate) async fn check_unknowns(ledger: &Ledger, changes: Option<usize>) -> String {
    let start = Instant::now();
    while ledger.recorder().requests().open() > 0 && start.elapsed() < OPEN_MAX {
        tokio::time::sleep(PAUSE).await;
    }
    let (sent, judged) = (ledger.recorder().requests(), ledger.ends());
    let histories = changes.map_or(Ok(()), |changes| balance_tags(sent, changes));
    for reason in [balance(sent, judged), histories].into_iter().filter_map(Result::err) {
        ledger.violated(Invariant::I10, reason);
    }
    ledger.checked(Invariant::I10);
    format!("{} sent, {} of them judged, {} unknown", sent.sent, judged.all(), sent.unknown)
}

fn balance(sent: Requests, judged: Ends) -> Result<(), String> {
    if sent.open() != 0 {
        return Err(format!("{} requests have no end: {sent:?}", sent.open()));
    }
    if judged.all() > sent.sent {
        return Err(format!("more is judged than was sent: {judged:?} of {sent:?}"));
    }
    if judged.failed > sent.failed {
        return Err(format!("what may have happened is judged as failed: {judged:?} of {sent:?}"));
    }
    Ok(())
}

/// A change of a tag that may have happened and is in no history would be read as a wrong answer, or hide one.
fn balance_tags(sent: Requests, changes: usize) -> Result<(), String> {
    if sent.tag_changes != changes as u64 {
        let sent = sent.tag_changes;
        return Err(format!(
            "{sent} tag changes may have happened, and {changes} are in a history"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpListener;

    use super::*;
    use crate::{
        client::RegistryClient,
        timeline::{RequestKind, Sent},
    };

    #[test]
    fn an_end_that_is_missing_or_made_up_is_noticed() {
        let sent = Requests {
            sent: 6,
            acknowledged: 2,
            refused: 2,
            unknown: 1,
            failed: 1,
            ..Requests::default()
        };
        let (refused, absent, wrong) = (1, 1, 1);
        let judged = Ends { acknowledged: 1, refused, absent, wrong, unknown: 1, failed: 1 };
        balance(sent, judged).unwrap();
        // Not everything need be judged by a workload.
        balance(sent, Ends { unknown: 0, ..judged }).unwrap();
        balance(Requests { unknown: 0, ..sent }, judged).unwrap_err();
        balance(sent, Ends { acknowledged: 2, ..judged }).unwrap_err();
        let renamed = Ends { unknown: 0, failed: 2, ..judged };
        balance(sent, renamed).unwrap_err();
    }

    #[tokio::test]
    async fn a_change_of_a_tag_that_may_have_happened_and_is_in_no_history_is_noticed() {
        let ledger = Ledger::default();
        let (tag, gone) = ("/v2/chaos/tags/manifests/t0-0", Some(503));
        for (kind, path, outcome, status) in [
            (RequestKind::PushManifest, tag, Outcome::Acknowledged, Some(201)),
            (RequestKind::Delete, tag, Outcome::Refused, gone),
            (RequestKind::PushManifest, tag, Outcome::Unknown, None),
            // None of these is one.
            (RequestKind::PushManifest, tag, Outcome::Refused, Some(412)),
            (RequestKind::PushManifest, tag, Outcome::Failed, None),
            (RequestKind::TagRead, tag, Outcome::Acknowledged, Some(200)),
            (RequestKind::Delete, "/v2/chaos/tags/manifests/probe-1", Outcome::Refused, gone),
            (RequestKind::Delete, "/v2/chaos/other/manifests/t0-0", Outcome::Refused, gone),
        ] {
            Sent::begin(ledger.recorder(), "a", kind, 0).about(path).end(outcome, status);
        }
        // One that nobody waits for any more.
        drop(Sent::begin(ledger.recorder(), "a", RequestKind::Delete, 0).about(tag));
        check_unknowns(&ledger, Some(4)).await;
        assert!(ledger.violations().is_empty(), "{:?}", ledger.violations());
        check_unknowns(&ledger, Some(3)).await;
        assert_eq!(ledger.violations().len(), 1);
    }

    #[tokio::test]
    async fn a_request_without_an_answer_is_unknown_and_one_that_nobody_took_has_failed() {
        let ledger = Ledger::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let client = RegistryClient::external(&base, None, None).unwrap();
        let client = client.recorded(ledger.recorder(), "a");
        // It takes the request, and says nothing.
        let rude = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            std::io::Read::read(&mut socket, &mut [0; 64]).unwrap();
        });
        let wrote = ledger.judge_write(client.delete("/v2/a/manifests/b").await, &[202]);
        assert!(wrote.may_have_happened());
        rude.join().unwrap();
        let wrote = ledger.judge_write(client.delete("/v2/a/manifests/b").await, &[202]);
        assert!(!wrote.may_have_happened());
        assert_eq!(ledger.ends(), Ends { unknown: 1, failed: 1, ..Ends::default() });
        let sent = ledger.recorder().requests();
        assert_eq!((sent.sent, sent.unknown, sent.failed), (2, 1, 1));
        check_unknowns(&ledger, None).await;
        assert!(ledger.violations().is_empty(), "{:?}", ledger.violations());
        // A book that says otherwise is noticed.
        ledger.ended(End::Failed);
        check_unknowns(&ledger, None).await;
        assert_eq!(ledger.violations().len(), 1);
    }
}
