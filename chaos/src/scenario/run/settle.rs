//! The end of a run: everything is healed, and everything that was promised is checked.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::{HEAL_DEADLINE, Run};
use crate::{
    check::{
        Within, check_completeness, check_copies, check_digests, check_errors, check_kept,
        check_liveness, check_state, check_tags, check_tags_so_far, check_unknowns, same_views,
        wait_converged,
    },
    client::RegistryClient,
    network::Network,
    not_shown::{OrNotShown as _, ensure_shown},
    workload::Invariant,
};

/// For the pulls from replicas that have not become one again: what is lost shows, and the rest is no news.
const APART_PATIENCE: Duration = Duration::from_secs(120);
/// Replicas that keep each blob, unless there are fewer: the default of `cluster.replication_factor`.
const REPLICATION: usize = 3;
/// For what can be done after a scenario that has failed.
const SALVAGE_PATIENCE: Duration = Duration::from_secs(30);

impl Run {
    /// Heals what is still hurt, ends the load, waits until all replicas are one again, and checks everything that
    /// was promised. Then the cluster is stopped, which must go well too. Does nothing without a cluster.
    ///
    /// # Errors
    /// The first that is met; what comes after it is checked all the same.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        if self.cluster.is_none() {
            return Ok(());
        }
        let mut shown = Ok(());
        if let Some(network) = &self.network {
            let dropped = dropped(network);
            network.heal()?;
            match dropped {
                Ok(0) => {}
                Ok(packets) => self.figure("packets dropped", packets),
                Err(error) => shown = Err(error),
            }
        }
        self.links.clear();
        self.faults.note("everything is healed");
        self.restart_all().await?;
        self.stop_load().await?;
        let one = self.converge().await;
        let mut ended = match &one {
            Ok(()) => self.check_answers().await,
            // Nobody would end it.
            Err(_) => match timeout(APART_PATIENCE, self.check_answers()).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.faults.note("the pulls were given up");
                    Ok(())
                }
            },
        };
        self.check_histories();
        if one.is_ok() {
            ended = ended.and(self.compare_states().await);
        }
        self.check_processes().await?;
        self.faults.note("all promises are checked");
        self.watch = None;
        if let Some(cluster) = self.cluster.take() {
            ended = ended.and(cluster.shut_down().await);
        }
        one.and(ended).and(shown)
    }

    /// What can still be checked after a scenario that has failed on its way.
    pub(crate) async fn salvage(&mut self) {
        if self.cluster.is_none() {
            return;
        }
        // A client that does not end is of no more use.
        let _ = timeout(SALVAGE_PATIENCE, self.stop_load()).await;
        self.check_histories();
        let Ok(cluster) = self.cluster() else { return };
        let running: Vec<usize> =
            (0..cluster.len()).filter(|index| cluster.is_running(*index)).collect();
        let clients = running.iter().map(|index| self.client(*index)).collect::<Result<Vec<_>>>();
        if let Ok(clients) = clients {
            let _ = timeout(SALVAGE_PATIENCE, check_kept(&self.ledger, &clients)).await;
        }
        if let Some(cluster) = &self.cluster {
            check_errors(&self.ledger, cluster);
        }
    }

    /// Whether the tags have held so far (I3). While clients still work, or were ended on their way, that is less.
    pub(crate) fn check_histories(&mut self) {
        if self.unfinished {
            // What somebody has read may have been written by a client that has not told yet.
            check_tags_so_far(&self.ledger);
            return;
        }
        let tags = check_tags(&self.ledger);
        for unsure in &tags.unsure {
            self.faults.note(&format!("the history of a tag was not decided: {unsure}"));
        }
        self.tags_checked = (tags.tags, tags.operations);
        self.tag_changes = Some(tags.changes);
    }

    /// Waits until the replicas are one again, within T.
    async fn converge(&mut self) -> Result<()> {
        let healed = self.healed.unwrap_or_else(Instant::now);
        let blobs = if self.full_copies { self.ledger.kept_blobs() } else { BTreeSet::new() };
        let (ledger, members) = (Arc::clone(&self.ledger), self.members.clone());
        let within = Within { healed, time: self.replication_max };
        let took = wait_converged(&ledger, self.cluster()?, &members, &blobs, within).await?;
        self.full_replication = Some(took);
        // Neither the registry's own count nor a file of the right name says what is on the disks.
        let (blobs, wanted) = (ledger.kept_blobs(), members.len().min(REPLICATION));
        check_copies(&ledger, self.cluster()?, &members, &blobs, wanted)?;
        self.faults.note("all replicas agree and hold everything");
        Ok(())
    }

    /// What clients get from every member.
    async fn check_answers(&mut self) -> Result<()> {
        let members = self.members.clone();
        let clients: Vec<RegistryClient> =
            members.iter().map(|index| self.client(*index)).collect::<Result<_>>()?;
        self.checked_pulls = check_kept(&self.ledger, &clients).await;
        let mut ended = Ok(());
        if self.about(Invariant::I4) {
            match check_completeness(&self.ledger, &clients).await {
                Ok(pulls) => self.figure("pulls of all that can be seen", pulls),
                Err(error) => ended = Err(error),
            }
        }
        match check_digests(&self.ledger, &clients).await {
            Ok(0) => {}
            Ok(never) => self
                .faults
                .note(&format!("{never} times nothing was there that only liars spoke of")),
            Err(error) => ended = ended.and(Err(error)),
        }
        ended.and(same_views(&self.ledger, &clients).await)
    }

    /// What the replicas have made of the log.
    async fn compare_states(&mut self) -> Result<()> {
        let (ledger, members) = (Arc::clone(&self.ledger), self.members.clone());
        let state = check_state(&ledger, self.cluster()?, &members, HEAL_DEADLINE).await?;
        self.figure("state", state.unwrap_or_else(|| "not told".to_owned()));
        Ok(())
    }

    /// What is checked of the replicas themselves and of this program, not of answers: logs, silences, books, bounds.
    async fn check_processes(&mut self) -> Result<()> {
        let cluster = self.cluster.as_ref().context("there is a cluster until it is stopped")?;
        check_errors(&self.ledger, cluster);
        if self.about(Invariant::I8) {
            check_liveness(&self.ledger, self.members.len(), self.resume_max());
        }
        let requests = check_unknowns(&self.ledger, self.tag_changes).await;
        self.figure("requests", requests);
        if let Some(sampler) = self.sampler.take() {
            let taken = sampler.check(&self.ledger, self.bounds);
            self.figure("processes", taken);
        }
        Ok(())
    }
}

/// Packets that the filters have dropped. That they were told to says nothing: they must have met some.
fn dropped(network: &Network) -> Result<u64> {
    if !network.was_hurt() {
        return Ok(0);
    }
    let lost = network.lost().or_not_shown()?;
    ensure_shown!(lost > 0, "no packet was ever dropped");
    Ok(lost)
}
