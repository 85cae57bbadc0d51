//! I5: after healing all replicas are one again. They have applied the same entry of the log, their states are the same
//! record by record, each holds every blob within a bound, and they list the same tags.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::{
    client::RegistryClient,
    cluster::Cluster,
    wait::wait_until,
    workload::{Invariant, Ledger},
};

/// What a program that is too old for the question says to it.
const UNKNOWN_COMMAND: &str = "unrecognized subcommand";
/// Until all replicas that are one again list the same tags.
pub(super) const VIEWS_DEADLINE: Duration = Duration::from_secs(20);
/// What the program says when two replicas contradict each other.
const DIFFERENT: &str = "have different states";

/// T: how long full replication may take, and from when on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within {
    pub(crate) healed: Instant,
    pub(crate) time: Duration,
}

/// Waits until all replicas run, follow one leader, have applied the same, miss nothing by the registry's own count, and
/// hold each of `blobs` on their own disks. That has to come within T of the healing. Returns how long it took.
///
/// # Errors
/// If it does not come; the ledger has the violation.
pub(crate) async fn wait_converged(
    ledger: &Ledger,
    cluster: &Cluster,
    members: &[usize],
    blobs: &BTreeSet<String>,
    within: Within,
) -> Result<Duration> {
    let Within { healed, time } = within;
    let left = time.saturating_sub(healed.elapsed());
    let one = wait_until("all replicas are one again", left, || async {
        let statuses = try_join_all(members.iter().map(|index| cluster.status(*index))).await?;
        let first = statuses.first().context("a cluster has replicas")?;
        for status in &statuses {
            let name = &status.name;
            ensure!(status.leader.is_some(), "{name} follows no leader");
            ensure!(status.cluster_id == first.cluster_id, "{name} is of another cluster");
            ensure!(
                status.applied == first.applied,
                "{name} has applied {}, {} has applied {}",
                status.applied,
                first.name,
                first.applied
            );
            for member in &status.members {
                ensure!(member.reachable, "{name} does not reach {}", member.name);
                ensure!(
                    member.missing_blobs == Some(0),
                    "{} misses blobs, says {name}: {member:?}",
                    member.name
                );
            }
        }
        for index in members {
            let replica = cluster.replica(*index);
            for digest in blobs {
                let path = replica.blob_path(digest)?;
                ensure!(path.is_file(), "{} has no file of {digest}", replica.name);
            }
        }
        Ok(())
    });
    if let Err(error) = one.await {
        let what = format!("not one again {time:?} after the healing: {error:#}");
        ledger.violated(Invariant::I5, what);
        return Err(error);
    }
    Ok(healed.elapsed())
}

/// All replicas answer the same about the tags of the ledger's repositories. One that is not ready to say is asked again.
///
/// # Errors
/// If they do not; the ledger has the violation.
pub(crate) async fn same_views(ledger: &Ledger, clients: &[RegistryClient]) -> Result<()> {
    for repository in &ledger.repositories() {
        let same = wait_until("all replicas list the same tags", VIEWS_DEADLINE, || async {
            let views = try_join_all(clients.iter().map(|client| view(ledger, client, repository)));
            let views = views.await?;
            let first = views.first().context("a cluster has replicas")?;
            for (index, view) in views.iter().enumerate() {
                ensure!(view == first, "replica {index} lists other tags of {repository}");
            }
            Ok(())
        });
        if let Err(error) = same.await {
            ledger.violated(Invariant::I5, format!("{error:#}"));
            return Err(error);
        }
    }
    Ok(())
}

/// What a replica knows for sure about the tags of a repository.
async fn view(ledger: &Ledger, client: &RegistryClient, repository: &str) -> Result<(u16, Bytes)> {
    let path = format!("/v2/{repository}/tags/list?n=1000");
    let answer = ledger.judge_ask(client.get(&path).await);
    let answer = answer.with_context(|| format!("{path} was not answered"))?;
    ensure!(matches!(answer.status, 200 | 404), "{}", answer.describe());
    ensure!(!answer.is_stale(), "a healed replica answers stale: {}", answer.describe());
    Ok((answer.status, answer.body))
}

/// Asks the members for the digests of their states until all have told them of one entry. Returns that digest; `None`
/// if the program under test cannot tell, or if the ledger has the violation.
///
/// # Errors
/// If they never are at one entry: nothing writes to them any more.
pub(crate) async fn check_state(
    ledger: &Ledger,
    cluster: &Cluster,
    members: &[usize],
    deadline: Duration,
) -> Result<Option<String>> {
    let Some(first) = members.first() else { return Ok(None) };
    let mut arguments = vec!["state-hash", "--json"];
    for index in members {
        arguments.extend(["--of", cluster.replica(*index).name.as_str()]);
    }
    let said = wait_until("the replicas tell their states at one entry", deadline, || async {
        match cluster.operate(*first, &arguments).await {
            Ok(output) => Ok(Some(output.stdout)),
            Err(error) => {
                let why = format!("{error:#}");
                if why.contains(DIFFERENT) {
                    ledger.violated(Invariant::I5, why);
                    return Ok(None);
                }
                if why.contains(UNKNOWN_COMMAND) {
                    return Ok(None);
                }
                Err(error)
            }
        }
    })
    .await?;
    let Some(said) = said else { return Ok(None) };
    let answers: Value = serde_json::from_str(&said).context("the states are no JSON")?;
    let digest = answers.pointer("/0/state/digest").and_then(Value::as_str);
    let digest = digest.context("a state has a digest")?.to_owned();
    ledger.checked(Invariant::I5);
    Ok(Some(digest))
}
