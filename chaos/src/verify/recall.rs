//! Pulls everything that is kept from every target again, and judges what comes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::join_all, stream};

use super::Target;
use crate::{
    digest::Hasher,
    workload::{Invariant, Kept, Ledger, Reading},
};

const PAUSE: Duration = Duration::from_millis(200);
const AT_ONCE: usize = 4;
/// After so many things in a row that a target said nothing about it is asked no more.
const SILENCE_MAX: u64 = 8;
/// Reasons that are shown, of each kind.
const SHOWN: usize = 5;

/// A tag needs a majority that can be asked; without one it is not lost. (A 404 counts as a refusal only if it says
/// itself that it may be stale.) What has a digest must be given by whoever has it.
const NOT_NOW: [u16; 3] = [404, 429, 503];

/// How one target answered for one thing.
#[derive(Clone, Debug)]
enum Got {
    Given,
    /// Wrong bytes, or a sure "not there": in the ledger by now.
    Broken,
    /// It answers with this status, and does not give it.
    Refused(u16),
    /// It does not answer.
    Silent(String),
}

/// What one target gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) given: u64,
    pub(super) broken: u64,
    pub(super) refused: u64,
    pub(super) silent: u64,
}

/// What came of it all.
#[derive(Clone, Debug, Default)]
pub(super) struct Recalled {
    /// By target, in their order.
    pub(super) targets: Vec<Given>,
    /// Why something could not be judged although somebody else gave it, or everybody was silent.
    pub(super) unsure: Vec<String>,
    /// Things that were given by somebody.
    pub(super) found: usize,
}

impl Recalled {
    pub(super) fn pulls(&self) -> usize {
        let given = self.targets.iter().map(|target| target.given).sum::<u64>();
        usize::try_from(given).unwrap_or(usize::MAX)
    }

    pub(super) fn add(&mut self, other: Self) {
        if self.targets.len() < other.targets.len() {
            self.targets.resize(other.targets.len(), Given::default());
        }
        for (sum, more) in self.targets.iter_mut().zip(&other.targets) {
            sum.given += more.given;
            sum.broken += more.broken;
            sum.refused += more.refused;
            sum.silent += more.silent;
        }
        self.unsure.extend(other.unsure);
        self.found += other.found;
    }
}

/// Pulls all of `kept` from each target. What is broken is in the ledger afterwards.
pub(super) async fn recall(
    ledger: &Ledger,
    targets: &[Target],
    kept: &[Kept],
    patience: Duration,
) -> Recalled {
    let answers =
        join_all(targets.iter().map(|target| from_one(ledger, target, kept, patience))).await;
    judge(ledger, targets, kept, &answers)
}

async fn from_one(ledger: &Ledger, target: &Target, kept: &[Kept], patience: Duration) -> Vec<Got> {
    let silence = AtomicU64::new(0);
    stream::iter(kept)
        .map(|kept| async {
            let silent_before = silence.load(Ordering::Relaxed);
            if silent_before >= SILENCE_MAX {
                return Got::Silent("it has not answered before".to_owned());
            }
            // One that has just said nothing is asked once more, and not for long.
            let patience = if silent_before > 0 { Duration::ZERO } else { patience };
            let got = one(ledger, target, kept, patience).await;
            match got {
                Got::Silent(_) => silence.fetch_add(1, Ordering::Relaxed),
                _ => silence.swap(0, Ordering::Relaxed),
            };
            got
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn one(ledger: &Ledger, target: &Target, kept: &Kept, patience: Duration) -> Got {
    let start = Instant::now();
    loop {
        let got = match ledger.read(&target.client, kept).await {
            Reading::Found(answer) => {
                let mut hasher = Hasher::like(&kept.digest);
                hasher.update(&answer.body);
                let found = hasher.finish();
                if found == kept.digest {
                    return Got::Given;
                }
                // A tag of an image is set once.
                let what = format!("{} gives {found} for {}", target.name, named(kept));
                ledger.violated(Invariant::I3, what);
                return Got::Broken;
            }
            Reading::Absent => {
                ledger.lost(format!("{} has lost {}", target.name, named(kept)));
                return Got::Broken;
            }
            Reading::Wrong => return Got::Broken,
            Reading::Refused(status) => Got::Refused(status),
            Reading::Unreachable(reason) => Got::Silent(reason),
        };
        if start.elapsed() >= patience {
            return got;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn judge(ledger: &Ledger, targets: &[Target], kept: &[Kept], answers: &[Vec<Got>]) -> Recalled {
    let mut recalled =
        Recalled { targets: vec![Given::default(); targets.len()], ..Recalled::default() };
    let mut refusals: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut silence: BTreeMap<&str, &String> = BTreeMap::new();
    let mut nowhere = Vec::new();
    let mut not_now = Vec::new();
    for (index, kept) in kept.iter().enumerate() {
        let mut given = 0_u64;
        let mut broken = 0_u64;
        let mut refused = Vec::new();
        for ((target, answers), sum) in targets.iter().zip(answers).zip(&mut recalled.targets) {
            match answers.get(index) {
                Some(Got::Given) => {
                    given += 1;
                    sum.given += 1;
                }
                Some(Got::Broken) => {
                    broken += 1;
                    sum.broken += 1;
                }
                Some(Got::Refused(status)) => {
                    sum.refused += 1;
                    refused.push((target, *status));
                }
                Some(Got::Silent(why)) => {
                    sum.silent += 1;
                    silence.entry(target.name.as_str()).or_insert(why);
                }
                None => sum.silent += 1,
            }
        }
        recalled.found += usize::from(given > 0);
        if given + broken > 0 {
            for (target, status) in refused {
                let list = refusals.entry(target.name.as_str()).or_default();
                list.push(format!("{}: status {status}", named(kept)));
            }
        } else if refused.is_empty() {
            nowhere.push(named(kept));
        } else {
            let by_tag = kept.reference != kept.digest;
            let said: Vec<String> = refused
                .iter()
                .map(|(target, status)| format!("{} status {status}", target.name))
                .collect();
            let what = format!("nobody gives {}: {}", named(kept), said.join(", "));
            if by_tag && refused.iter().all(|(_, status)| NOT_NOW.contains(status)) {
                not_now.push(what);
            } else {
                ledger.violated(Invariant::I1, what);
            }
        }
    }
    for (target, list) in refusals {
        let shown = list.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        let what = format!("{target} answers and does not give {} things: {shown}", list.len());
        recalled.unsure.push(what);
    }
    if !not_now.is_empty() {
        let shown = not_now.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        let what = format!("{} tags were refused by all that answer: {shown}", not_now.len());
        recalled.unsure.push(what);
    }
    if !nowhere.is_empty() {
        let shown = nowhere.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let said: Vec<String> =
            silence.iter().map(|(target, why)| format!("{target}: {why}")).collect();
        let said = said.join("; ");
        let what = format!("no target answered for {} things: {shown} ({said})", nowhere.len());
        recalled.unsure.push(what);
    }
    recalled
}

fn named(kept: &Kept) -> String {
    let what = if kept.manifest { "the manifest" } else { "the blob" };
    if kept.reference == kept.digest {
        format!("{what} {}@{}", kept.repository, kept.digest)
    } else {
        format!("{what} {}:{} ({})", kept.repository, kept.reference, kept.digest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::client::RegistryClient;

    #[test]
    fn a_tag_without_a_majority_is_not_lost_and_a_digest_that_nobody_gives_is() {
        let client = RegistryClient::external("http://127.0.0.1:1", None, None).unwrap();
        let target = |name: &str| Target { name: name.to_owned(), client: client.clone() };
        let targets = [target("a"), target("b"), target("c")];
        let kept = |reference: &str| Kept {
            repository: "r".to_owned(),
            reference: reference.to_owned(),
            digest: "sha256:00".to_owned(),
            manifest: true,
        };
        let said = |reference: &str, answers: [Got; 3]| {
            let ledger = Ledger::default();
            let answers = answers.map(|got| vec![got]);
            let recalled = judge(&ledger, &targets, &[kept(reference)], &answers);
            (ledger.violations().len(), recalled.unsure.len())
        };
        let silent = || Got::Silent("no answer".to_owned());
        let (busy, stale, denied) = (Got::Refused(503), Got::Refused(404), Got::Refused(403));
        assert_eq!(said("v1", [busy.clone(), stale.clone(), silent()]), (0, 1));
        assert_eq!(said("v1", [busy.clone(), denied, silent()]), (1, 0));
        assert_eq!(said("sha256:00", [busy.clone(), stale, silent()]), (1, 0));
        assert_eq!(said("sha256:00", [silent(), silent(), silent()]), (0, 1));
        // Somebody gives it: then it is that one that is told about.
        assert_eq!(said("v1", [Got::Given, busy, silent()]), (0, 1));
    }
}
