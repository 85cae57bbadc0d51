//! Garbage collection: the leader looks for blobs that nothing references and proposes to forget them.
//!
//! What is proposed is only a suggestion; applying it judges again. What this worker is careful about is
//! not to fill the log with suggestions that come to nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tercet_raft::{Command, Consensus, Outcome, Role};
use tercet_storage::{CollectionHold, Digest, RepositoryName};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::candidates::{Candidate, Grace, Verdict, describe};
use super::error::RegistryError;
use super::now_ms;
use super::read::{look, writable_and_current};
use super::renew::Renewals;
use crate::core::Core;

/// Blobs, and repositories, in one command.
const BLOBS_PER_COMMAND: usize = 256;
const REPOSITORIES_PER_COMMAND: usize = 64;
/// Records read at a time.
const PAGE: usize = 512;
/// From becoming the leader to the first round, at most.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// What the cluster must understand.
const FEATURE_LEVEL: u32 = 2;
/// Requests for a round that wait.
const REQUESTS: usize = 4;

/// Where the answer to somebody who asked for a round goes.
type Request = oneshot::Sender<Result<Round, String>>;

/// What is known of collection on this replica, and the way to ask for it.
#[derive(Debug)]
pub struct Collection {
    pub(super) renewals: Renewals,
    requests: mpsc::Sender<Request>,
    /// Taken by the worker when it starts.
    queue: Mutex<Option<mpsc::Receiver<Request>>>,
    told: Mutex<Told>,
}

#[derive(Debug, Clone, Default)]
struct Told {
    last_round: Option<Round>,
    last_comparison: Option<Comparison>,
}

/// One look of the leader at all blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// Blobs that nothing referenced, those collected included.
    pub unreferenced: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// Blobs that were collected.
    pub collected: u64,
    /// Their bytes; each replica that held a copy gets them back.
    pub collected_bytes: u64,
    /// Repositories that were proposed to be forgotten, because nothing was left in them.
    pub repositories: u64,
    /// Why nothing was collected, if something kept it from being.
    pub skipped: Option<String>,
}

/// One comparison of the disk of a replica with the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// Files there were.
    pub files: u64,
    /// Files that no record knew; those that are old enough are gone.
    pub unknown: u64,
}

/// Where collection stands, as one replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GcStatus {
    /// `gc.enabled` of this replica.
    pub enabled: bool,
    /// `gc.grace_seconds` of this replica.
    pub grace_seconds: u64,
    /// `gc.interval_seconds` of this replica.
    pub interval_seconds: u64,
    /// `gc.orphan_grace_seconds` of this replica.
    pub orphan_grace_seconds: u64,
    /// The last round that this replica did, as the leader, since it started.
    pub last_round: Option<Round>,
    /// The last comparison of this replica's disk since it started.
    pub last_comparison: Option<Comparison>,
    /// Blob files that were removed here since it started.
    pub removed_files: u64,
    /// Of them, those that no record had known.
    pub removed_orphans: u64,
    /// Their bytes.
    pub removed_bytes: u64,
}

impl Collection {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        Self {
            renewals: Renewals::default(),
            requests,
            queue: Mutex::new(Some(queue)),
            told: Mutex::default(),
        }
    }

    /// Does one round now. For the leader.
    pub(crate) async fn run_now(&self) -> Result<Round, String> {
        let (answer, round) = oneshot::channel();
        let busy = "collection has been asked for already, or the replica is stopping";
        self.requests.try_send(answer).map_err(|_| busy.to_owned())?;
        round.await.map_err(|_| "the replica is stopping".to_owned())?
    }

    pub(super) fn note_comparison(&self, files: usize, unknown: usize) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let comparison =
            Comparison { ended_ms: now_ms(), files: count(files), unknown: count(unknown) };
        self.told().last_comparison = Some(comparison);
    }

    /// Each change is one statement.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Collection {
    fn default() -> Self {
        Self::new()
    }
}

/// Where collection stands.
pub(crate) fn gc_status(core: &Core) -> GcStatus {
    let (gc, metrics) = (&core.config.gc, &core.metrics);
    let Told { last_round, last_comparison } = core.collection.told().clone();
    let removed_orphans = metrics.gc_orphans_removed.get();
    GcStatus {
        enabled: gc.enabled,
        grace_seconds: gc.grace_seconds,
        interval_seconds: gc.interval_seconds,
        orphan_grace_seconds: gc.orphan_grace_seconds,
        last_round,
        last_comparison,
        removed_files: metrics.gc_unlinked.get().saturating_add(removed_orphans),
        removed_orphans,
        removed_bytes: metrics.gc_freed_bytes.get(),
    }
}

/// A page of blobs that nothing references and whose grace is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidatePage {
    /// The blobs.
    pub candidates: Vec<Candidate>,
    /// Where the next page begins; `None` at the end.
    pub next_after: Option<String>,
    /// Blobs of this page's part of the catalogue that nothing references and whose grace is not over.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
}

/// What the next round would collect, if nothing happens until then: the part of it among `PAGE` blobs.
pub(crate) fn candidates(
    core: &Core,
    after: Option<&Digest>,
) -> Result<CandidatePage, RegistryError> {
    let grace = grace(core, now_ms());
    look(&core.consensus, |meta| {
        let blobs = meta.blobs(after, PAGE)?;
        let is_last = blobs.len() < PAGE;
        let next = blobs.last().filter(|_| !is_last).map(|(digest, _)| digest.to_string());
        let mut page = CandidatePage { next_after: next, ..CandidatePage::default() };
        for (digest, record) in &blobs {
            match grace.judge(record) {
                Verdict::Due => page.candidates.push(describe(&meta, digest, record)?),
                Verdict::Waits | Verdict::Misdated => {
                    page.waiting += 1;
                    page.waiting_bytes += record.size;
                }
                Verdict::Referenced => {}
            }
        }
        Ok(page)
    })
}

/// Who keeps blobs from being collected now.
pub(crate) fn active_holds(core: &Core) -> Result<Vec<CollectionHold>, RegistryError> {
    let now_ms = now_ms();
    let mut holds = look(&core.consensus, |meta| meta.collection_holds())?;
    holds.retain(|hold| hold.is_active(now_ms));
    Ok(holds)
}

/// Starts the worker.
pub(crate) fn start_collector(core: &Arc<Core>) {
    let queue = core.collection.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(queue) = queue else { return };
    let (weak, consensus) = (Arc::downgrade(core), core.consensus.clone());
    let interval = core.config.gc.interval();
    core.workers.spawn("collector", move |token| async move {
        token.run_until_cancelled(keep(weak, consensus, interval, queue)).await;
    });
}

async fn keep(
    core: Weak<Core>,
    consensus: Consensus,
    interval: Duration,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut due = Instant::now() + interval.min(FIRST_ROUND);
    loop {
        let role = consensus.status().role;
        let requested = tokio::select! {
            () = consensus.role_changed(role) => {
                if let Some(core) = core.upgrade() {
                    // What a former leader saw long ago is no figure of today.
                    core.metrics.gc_candidates.set(0);
                }
                due = Instant::now() + interval.min(FIRST_ROUND);
                continue;
            }
            request = requests.recv() => match request {
                Some(answer) => Some(answer),
                None => return,
            },
            () = tokio::time::sleep_until(due), if role == Role::Leader => None,
        };
        let Some(core) = core.upgrade() else { return };
        let round = round(&core).await;
        due = Instant::now() + interval;
        match (&round, &requested) {
            (Ok(round), _) => core.collection.told().last_round = Some(round.clone()),
            (Err(error), None) => tracing::warn!(%error, "cannot collect garbage now; trying on"),
            (Err(_), Some(_)) => {}
        }
        if let Some(answer) = requested {
            // Whoever asked may be gone; the round was done all the same.
            let _ = answer.send(round.map_err(|error| error.to_string()));
        }
    }
}

/// Looks at every blob and every repository once.
async fn round(core: &Core) -> Result<Round, RegistryError> {
    writable_and_current(core).await?;
    if let Some(skipped) = reason_to_skip(core)? {
        tracing::debug!(skipped, "no garbage is collected");
        return Ok(Round { ended_ms: now_ms(), skipped: Some(skipped), ..Round::default() });
    }
    let grace = grace(core, now_ms());
    let mut round = Round::default();
    collect_blobs(core, &grace, &mut round).await?;
    forget_repositories(core, &grace, &mut round).await?;
    round.ended_ms = now_ms();
    let candidates = i64::try_from(round.unreferenced).unwrap_or(i64::MAX);
    core.metrics.gc_candidates.set(candidates);
    if round.collected > 0 || round.repositories > 0 {
        tracing::info!(
            blobs = round.collected,
            bytes = round.collected_bytes,
            repositories = round.repositories,
            "collected what nothing references any more"
        );
    }
    Ok(round)
}

fn reason_to_skip(core: &Core) -> Result<Option<String>, RegistryError> {
    if !core.config.gc.enabled {
        return Ok(Some("gc.enabled is false on the leader".to_owned()));
    }
    let level =
        look(&core.consensus, |meta| meta.feature_level())?.map_or(1, |record| record.level);
    if level < FEATURE_LEVEL {
        let wait = "not every replica runs a version that collects garbage yet";
        return Ok(Some(wait.to_owned()));
    }
    let holds = active_holds(core)?;
    Ok(holds.first().map(|hold| format!("{} keeps everything for now", hold.holder)))
}

async fn collect_blobs(core: &Core, grace: &Grace, round: &mut Round) -> Result<(), RegistryError> {
    let mut after: Option<Digest> = None;
    let mut due: Vec<(Digest, u64)> = Vec::new();
    loop {
        let page = look(&core.consensus, |meta| meta.blobs(after.as_ref(), PAGE))?;
        let mut misdated = Vec::new();
        after = page.last().map(|(digest, _)| digest.clone());
        for (digest, record) in page {
            let verdict = grace.judge(&record);
            if verdict != Verdict::Referenced {
                round.unreferenced += 1;
                round.unreferenced_bytes += record.size;
            }
            match verdict {
                Verdict::Due => due.push((digest, record.size)),
                Verdict::Misdated => misdated.push(digest),
                Verdict::Waits | Verdict::Referenced => {}
            }
        }
        if !misdated.is_empty() {
            tracing::warn!(
                blobs = misdated.len(),
                "stamps from the future: their grace begins now"
            );
            core.consensus.propose(Command::RenewBlobs { digests: misdated }).await?;
        }
        while due.len() >= BLOBS_PER_COMMAND || (after.is_none() && !due.is_empty()) {
            let batch = due.drain(..due.len().min(BLOBS_PER_COMMAND)).collect();
            propose(core, grace, batch, round).await?;
        }
        if after.is_none() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

async fn propose(
    core: &Core,
    grace: &Grace,
    batch: Vec<(Digest, u64)>,
    round: &mut Round,
) -> Result<(), RegistryError> {
    let digests = batch.iter().map(|(digest, _)| digest.clone()).collect();
    let command = Command::CollectBlobs { digests, grace_ms: grace.grace_ms };
    match core.consensus.propose(command).await? {
        Outcome::Collected(collected) => {
            // In the order in which they were proposed, some left out.
            let mut collected = collected.iter().peekable();
            for (digest, size) in batch {
                if collected.next_if(|next| **next == digest).is_some() {
                    round.collected += 1;
                    round.collected_bytes += size;
                    core.metrics.gc_collected.inc();
                    core.metrics.gc_collected_bytes.inc_by(size);
                }
            }
            Ok(())
        }
        other => Err(RegistryError::Refused(other.to_string())),
    }
}

async fn forget_repositories(
    core: &Core,
    grace: &Grace,
    round: &mut Round,
) -> Result<(), RegistryError> {
    let mut after: Option<RepositoryName> = None;
    loop {
        let page = look(&core.consensus, |meta| {
            meta.repositories(after.as_ref().map(AsRef::as_ref), REPOSITORIES_PER_COMMAND)
        })?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        let abandoned = look(&core.consensus, |meta| {
            let mut abandoned = Vec::new();
            for name in page {
                if grace.is_abandoned(&meta, &name)? {
                    abandoned.push(name);
                }
            }
            Ok(abandoned)
        })?;
        if !abandoned.is_empty() {
            round.repositories += u64::try_from(abandoned.len()).unwrap_or(u64::MAX);
            let command =
                Command::ForgetRepositories { repositories: abandoned, grace_ms: grace.grace_ms };
            core.consensus.propose(command).await?;
        }
        tokio::task::yield_now().await;
    }
}

fn grace(core: &Core, now_ms: u64) -> Grace {
    Grace { now_ms, grace_ms: grace_ms(core) }
}

pub(super) fn grace_ms(core: &Core) -> u64 {
    u64::try_from(core.config.gc.grace().as_millis()).unwrap_or(u64::MAX)
}
