//! When manifests were last pulled, as far as a retention rule asks.
//!
//! A pull is noted in memory. Now and then the group is told, of those repositories only for which a rule
//! has `keep_pulled_days`, and of a manifest once an hour at most: reads must not become writes. What was
//! not told when a replica dies is lost, which is why a pull counts for an hour longer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tercet_raft::{Command, Outcome, PULLS_MAX, PullSeen};
use tercet_storage::{Digest, RepositoryName};
use tokio_util::sync::CancellationToken;

use super::Rules;
use super::judge::PULL_RESOLUTION_MS;
use crate::core::Core;
use crate::registry::error::RegistryError;
use crate::registry::now_ms;
use crate::registry::read::look;

/// Manifests whose pulls are remembered until they are told.
const NOTED_MAX: usize = 65_536;
/// The longest time until they are.
const PERIOD_MAX: Duration = Duration::from_secs(120);
/// For the last ones, when the replica stops.
const LAST_WORDS: Duration = Duration::from_millis(1_500);

/// The pulls that this replica has served and not told yet.
#[derive(Debug)]
pub struct Pulls {
    /// Whether any rule asks.
    wanted: AtomicBool,
    noted: Mutex<BTreeMap<(RepositoryName, Digest), u64>>,
}

impl Default for Pulls {
    /// Nobody knows yet that no rule asks.
    fn default() -> Self {
        Self { wanted: AtomicBool::new(true), noted: Mutex::default() }
    }
}

impl Pulls {
    /// A manifest was asked for with GET or HEAD: clients that know the digest already only look whether
    /// it is still the one.
    pub fn note(&self, repository: &RepositoryName, digest: &Digest) {
        if self.wanted.load(Ordering::Relaxed) {
            self.note_at(repository.clone(), digest.clone(), now_ms());
        }
    }

    /// Beyond the bound a pull is forgotten: whoever is pulled at all is pulled again.
    fn note_at(&self, repository: RepositoryName, digest: Digest, at_ms: u64) {
        let mut noted = self.lock();
        let full = noted.len() >= NOTED_MAX;
        match noted.entry((repository, digest)) {
            Entry::Occupied(mut known) => {
                let last = known.get_mut();
                *last = at_ms.max(*last);
            }
            Entry::Vacant(_) if full => {}
            Entry::Vacant(free) => {
                free.insert(at_ms);
            }
        }
    }

    fn take(&self) -> BTreeMap<(RepositoryName, Digest), u64> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(RepositoryName, Digest), u64>> {
        // Each change is one statement.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the worker that tells the group.
pub(crate) fn start_pulls(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    let period = core.config.retention.interval().min(PERIOD_MAX);
    core.workers.spawn("pull-times", move |token| keep(weak, period, token));
}

async fn keep(core: Weak<Core>, period: Duration, stop: CancellationToken) {
    loop {
        let stopping = stop.run_until_cancelled(tokio::time::sleep(period)).await.is_none();
        let Some(core) = core.upgrade() else { return };
        let told = tell(&core);
        if stopping {
            // Nobody waits for it: what is lost is an hour of a time that counts in days.
            let _ = tokio::time::timeout(LAST_WORDS, told).await;
            return;
        }
        if let Err(error) = told.await {
            tracing::debug!(%error, "cannot tell the group now when manifests were pulled; trying on");
        }
    }
}

/// Tells what is new and asked for. What could not be told stays noted.
async fn tell(core: &Core) -> Result<(), RegistryError> {
    let rules = Rules::of_group(&core.consensus)?;
    let wanted = rules.rules.iter().any(|rule| rule.keep_pulled_days.is_some());
    core.pulls.wanted.store(wanted, Ordering::Relaxed);
    let noted = core.pulls.take();
    let told = tell_of(core, &rules, &noted).await;
    if told.is_err() {
        // Some of it may have been told: that is no news the next time.
        for ((repository, digest), at_ms) in noted {
            core.pulls.note_at(repository, digest, at_ms);
        }
    }
    told
}

async fn tell_of(
    core: &Core,
    rules: &Rules,
    noted: &BTreeMap<(RepositoryName, Digest), u64>,
) -> Result<(), RegistryError> {
    let mut asked: BTreeMap<&RepositoryName, bool> = BTreeMap::new();
    let mut news = Vec::new();
    for ((repository, digest), &at_ms) in noted {
        let asked = *asked.entry(repository).or_insert_with(|| {
            rules.about(repository).is_some_and(|rule| rule.keep_pulled_days.is_some())
        });
        if asked && is_news(core, repository, digest, at_ms)? {
            let (repository, digest) = (repository.clone(), digest.clone());
            news.push(PullSeen { repository, digest, at_ms });
        }
    }
    for some in news.chunks(PULLS_MAX) {
        match core.consensus.propose(Command::RecordPulls { pulls: some.to_vec() }).await? {
            Outcome::Done => {}
            other => return Err(RegistryError::Refused(format!("pull times: {other}"))),
        }
    }
    Ok(())
}

fn is_news(
    core: &Core,
    repository: &RepositoryName,
    digest: &Digest,
    at_ms: u64,
) -> Result<bool, RegistryError> {
    let known = look(&core.consensus, |meta| meta.pull(repository, digest))?;
    Ok(known.is_none_or(|known| known.last_ms.saturating_add(PULL_RESOLUTION_MS) <= at_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use tercet_storage::Algorithm;

    use super::*;

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    #[test]
    fn the_latest_pull_counts_and_memory_is_bounded() {
        let pulls = Pulls::default();
        let repository: RepositoryName = "a".parse().unwrap();
        for number in 0..NOTED_MAX + 10 {
            pulls.note_at(repository.clone(), digest(number), 5);
        }
        pulls.note_at(repository.clone(), digest(0), 9);
        pulls.note_at(repository.clone(), digest(0), 7);
        let noted = pulls.take();
        assert_eq!(noted.len(), NOTED_MAX);
        assert_eq!(noted[&(repository, digest(0))], 9);
        assert!(pulls.take().is_empty());
    }

    #[test]
    fn nothing_is_noted_while_no_rule_asks() {
        let pulls = Pulls::default();
        pulls.wanted.store(false, Ordering::Relaxed);
        pulls.note(&"a".parse().unwrap(), &digest(1));
        assert!(pulls.take().is_empty());
    }
}
